-- A stretch of a collection whose tasks should all be in one state. KEYS[1] the collection. ARGV[1] the prefix of the queue's
-- keys, [2] the state, [3] 'list' or 'sorted', [4] the place from the left in a list, or the cursor in a sorted set, [5] how many.
-- Answers {length of the list or the next cursor, ids, those whose hash says another state or nothing}. Writes nothing.
local ids, suspects, next = {}, {}, nil
if ARGV[3] == 'list' then
  local from = tonumber(ARGV[4])
  next = redis.call('LLEN', KEYS[1])
  ids = redis.call('LRANGE', KEYS[1], from, from + tonumber(ARGV[5]) - 1)
else
  local found = read_record('ZSCAN', KEYS[1], ARGV[4], 'COUNT', ARGV[5]) or {'0', {}}
  next = found[1]
  for at = 1, #found[2], 2 do ids[#ids + 1] = found[2][at] end
end
for _, id in ipairs(ids) do
  local key = ARGV[1] .. 't:' .. id
  local found = redis.call('TYPE', key).ok == 'hash' and redis.call('HMGET', key, 'state', 'msg')
  if not found or not found[2] or found[1] ~= ARGV[2] then suspects[#suspects + 1] = id end
end
return {next, ids, suspects}
