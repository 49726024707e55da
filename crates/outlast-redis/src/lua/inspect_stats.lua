-- A queue in numbers. KEYS[1] pending, [2] active, [3] scheduled, [4] retry, [5] archived, [6] completed, [7] groups,
-- [8] aggregation_sets, [9] groups that have been seen, [10] paused, [11] processed today, [12] failed today, [13] processed,
-- [14] failed. ARGV[1] the prefix of the queue's keys, [2] the set of queues or '' (it is elsewhere), [3] the queue,
-- [4] groups and sets counted here at most. Answers {is known, six lengths in the order of the keys, pending_since of the next
-- task, due times of the next scheduled and retry, paused, four counters, groups, their members}; groups -1: too many.
local call = redis.call
local known = ARGV[2] == '' and 1 or call('SISMEMBER', ARGV[2], ARGV[3])
local next_id = call('LINDEX', KEYS[1], -1)
-- What another program has put at the key of a task or a group counts for nothing.
local since = next_id and read_record('HGET', ARGV[1] .. 't:' .. next_id, 'pending_since') or false
local function due(key) return call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or false end
local groups, members = 0, 0
if call('SCARD', KEYS[7]) + call('SCARD', KEYS[9]) + call('ZCARD', KEYS[8]) > tonumber(ARGV[4]) then
  groups = -1
else
  local seen = {}
  local function count(group, key)
    local size = read_record('ZCARD', key) or 0
    members = members + size
    if size > 0 and not seen[group] then
      seen[group] = true
      groups = groups + 1
    end
  end
  for _, group in ipairs(call('SUNION', KEYS[7], KEYS[9])) do count(group, ARGV[1] .. 'g:' .. group) end
  for _, set in ipairs(call('ZRANGE', KEYS[8], 0, -1)) do
    count(string.match(string.sub(set, #ARGV[1] + 3), '^(.*):[^:]*$') or '', set)
  end
end
return {known, call('LLEN', KEYS[1]), call('LLEN', KEYS[2]), call('ZCARD', KEYS[3]), call('ZCARD', KEYS[4]),
  call('ZCARD', KEYS[5]), call('ZCARD', KEYS[6]), since, due(KEYS[3]), due(KEYS[4]), call('GET', KEYS[10]),
  call('GET', KEYS[11]), call('GET', KEYS[12]), call('GET', KEYS[13]), call('GET', KEYS[14]), groups, members}
