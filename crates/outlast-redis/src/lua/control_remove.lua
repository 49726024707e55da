-- Removes a queue that holds no task, or leaves it as it is. KEYS[1] pending, [2] active, [3] scheduled, [4] retry, [5] archived,
-- [6] completed, [7] groups, [8] aggregation_sets, [9] groups that have been seen, [10...] what else belongs to it and goes with
-- it; sessions and `once` keys stay: a removal must not look like a loss. So does what another program has put in the place of a
-- set or a group. ARGV[1] the prefix of the queue's keys, [2] the set of
-- queues, [3] the queue. Answers U there is no such queue, N it holds tasks, M call again, R removed.
local call = redis.call
local function has_members(key) return (read_record('ZCARD', key) or 0) > 0 end
if call('SISMEMBER', ARGV[2], ARGV[3]) == 0 then return 'U' end
-- What is on its way to another broker is still its own: tasks, or counters.
if call('HEXISTS', ARGV[1] .. 'outlast:move', 'at') == 1 then return 'N' end
for nth = 1, 6 do
  if call('EXISTS', KEYS[nth]) == 1 then return 'N' end
end
for _, set in ipairs(call('ZRANGE', KEYS[8], 0, 999)) do
  if has_members(set) then return 'N' end
  call('ZREM', KEYS[8], set)
end
for nth = 7, 9, 2 do
  for _, group in ipairs(call('SRANDMEMBER', KEYS[nth], 1000)) do
    if has_members(ARGV[1] .. 'g:' .. group) then return 'N' end
    call('SREM', KEYS[nth], group)
  end
end
for nth = 7, 9 do
  if call('EXISTS', KEYS[nth]) == 1 then return 'M' end
end
for nth = 10, #KEYS do call('DEL', KEYS[nth]) end
call('SREM', ARGV[2], ARGV[3])
return 'R'
