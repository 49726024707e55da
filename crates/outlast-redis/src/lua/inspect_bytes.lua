-- Roughly the bytes of a queue's tasks, sampled as asynq does it (contract §3.7). KEYS[1] pending, [2] active, [3] scheduled,
-- [4] retry, [5] archived, [6] completed, [7] groups. ARGV[1] the prefix of the queue's keys, [2] tasks sampled per
-- collection, [3] groups sampled, [4] members of groups. Answers the bytes, or '' where the server does not tell.
local refused = false
local function usage(key)
  local size = redis.pcall('MEMORY', 'USAGE', key)
  if type(size) == 'table' and size.err then refused = true end
  return type(size) == 'number' and size or 0
end
local function average(ids)
  local sum = 0
  for _, id in ipairs(ids) do sum = sum + usage(ARGV[1] .. 't:' .. id) end
  return #ids > 0 and sum / #ids or 0
end
local last = tonumber(ARGV[2]) - 1
local total = 0
for nth = 1, 6 do
  local is_list = nth <= 2
  local size = redis.call(is_list and 'LLEN' or 'ZCARD', KEYS[nth])
  if size > 0 then
    total = total + usage(KEYS[nth]) + size * average(redis.call(is_list and 'LRANGE' or 'ZRANGE', KEYS[nth], 0, last))
  end
end
local sum, sampled = 0, 0
for _, group in ipairs(redis.call('SRANDMEMBER', KEYS[7], ARGV[3])) do
  local ids = read_record('ZRANGE', ARGV[1] .. 'g:' .. group, 0, last) or {}
  if ids[1] then
    sum = sum + average(ids)
    sampled = sampled + 1
  end
end
if sampled > 0 then total = total + usage(KEYS[7]) + sum / sampled * tonumber(ARGV[4]) end
return refused and '' or string.format('%.0f', total)
