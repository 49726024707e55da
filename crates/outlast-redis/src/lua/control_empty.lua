-- Empties a queue that is being removed, a step at a time. KEYS[1] pending, [2] active, [3] scheduled, [4] retry,
-- [5] archived, [6] completed, [7] groups, [8] aggregation_sets, [9] groups that have been seen, [10] paused. ARGV[1] the
-- prefix of the queue's keys, [2] tasks at most, [3] now in seconds. Answers {active tasks, tasks deleted, is paused by us}.
-- While a task is active nothing is done. Of what another program has put at the key of a task, a set or a group only the name
-- goes. The first step pauses the queue, so that no worker claims from it meanwhile.
local call = redis.call
local active = call('LLEN', KEYS[2])
if active > 0 then return {active, 0, 0} end
local paused = call('SET', KEYS[10], ARGV[3], 'NX') and 1 or 0
local left = tonumber(ARGV[2])
local function delete(ids)
  for _, id in ipairs(ids) do
    local key = ARGV[1] .. 't:' .. id
    local found = read_record('HMGET', key, 'unique_key', 'msg')
    if found then
      local lock = found[1]
      if not lock and found[2] and string.find(found[2], ':unique:', 1, true) then lock = (read_message(found[2]) or {})[10] end
      unlock(lock, id)
      call('DEL', key)
    end
  end
  left = left - #ids
  return #ids
end
local function empty(key)
  if left <= 0 then return end
  local taken = delete(call('ZRANGE', key, 0, left - 1))
  if taken > 0 then call('ZREMRANGEBYRANK', key, 0, taken - 1) end
end
local taken = delete(call('LRANGE', KEYS[1], -left, -1))
if taken > 0 then call('LTRIM', KEYS[1], 0, -taken - 1) end
for nth = 3, 6 do empty(KEYS[nth]) end
local function is_over(key) return (read_record('ZCARD', key) or 0) == 0 end
for _, set in ipairs(call('ZRANGE', KEYS[8], 0, 99)) do
  if not is_over(set) then empty(set) end
  if is_over(set) then
    call('ZREM', KEYS[8], set)
    left = left - 1
  end
end
for nth = 7, 9, 2 do
  for _, group in ipairs(call('SRANDMEMBER', KEYS[nth], 100)) do
    local key = ARGV[1] .. 'g:' .. group
    if not is_over(key) then empty(key) end
    if is_over(key) then
      call('SREM', KEYS[nth], group)
      left = left - 1
    end
  end
end
return {0, tonumber(ARGV[2]) - left, paused}
