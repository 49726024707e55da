-- Ends a batch that is on its way: forgets the tasks that were stored and the counters, gives the rest back to where it was.
-- KEYS[1] the queue's move, [2] the tasks on their way, [3] the counters on their way, [4] pending, [5] scheduled, [6] retry,
-- [7] archived, [8] completed, [9] groups, [10] groups that have been seen. ARGV[1] the prefix of the queue's keys, [2] the session,
-- [3] the batch's number, [4] seconds that a counter of a day lives, [5] '1' to give the counters back, too, [6] the set of
-- queues, [7] the queue, listed when something goes back, [8...] ids that the target has stored: whatever is not named goes back. Answers 1, or 0 if another batch or none is on its way.
local call = redis.call
local P = ARGV[1]
local head = call('HMGET', KEYS[1], 's', 'n', 'at')
if not head[3] or head[1] ~= ARGV[2] or head[2] ~= ARGV[3] then return 0 end
call('LLEN', KEYS[4])
for nth = 5, 8 do call('ZCARD', KEYS[nth]) end
for nth = 9, 10 do call('SCARD', KEYS[nth]) end
local sorted = {scheduled = KEYS[5], retry = KEYS[6], archived = KEYS[7], completed = KEYS[8]}
local stored = {}
call('SISMEMBER', ARGV[6], ARGV[7])
for at = 8, #ARGV do stored[ARGV[at]] = true end

local function forget(id)
  local key = P .. 't:' .. id
  local found = call('HMGET', key, 'unique_key', 'msg')
  local lock = found[1]
  if not lock and found[2] and string.find(found[2], ':unique:', 1, true) then lock = (read_message(found[2]) or {})[10] end
  unlock(lock, id)
  call('DEL', key)
end
local function give_back(id, state, score, group)
  if state == 'pending' then
    call('RPUSH', KEYS[4], id)
  elseif state == 'aggregating' then
    call('ZADD', P .. 'g:' .. group, score, id)
    call('SADD', KEYS[9], group)
    call('SADD', KEYS[10], group)
  else
    call('ZADD', sorted[state], score, id)
  end
end

local kept, gone, back = call('HGETALL', KEYS[2]), {}, {}
for at = 1, #kept, 2 do
  local id = kept[at]
  local key = P .. 't:' .. id
  local nth, state, score, group = string.match(kept[at + 1], '^(%d+) (%S+) (%S+) ?(.*)$')
  if state == 'aggregating' then call('ZCARD', P .. 'g:' .. group) end
  local now = read_record('HGET', key, 'state')
  if now == 'outgoing' then
    if stored[id] then gone[#gone + 1] = id else back[#back + 1] = {tonumber(nth), id, state, score, group, key} end
  elseif not now and not stored[id] then
    -- No record, or data of another program: the place in the list goes back, nothing else.
    back[#back + 1] = {tonumber(nth), id, state, score, group}
  end
  -- Any other state: the id was a ghost's, and a new task has it, which is where it belongs.
end
for _, id in ipairs(gone) do forget(id) end
-- The first of the line goes back last, to the very end from which tasks are taken.
table.sort(back, function(one, two) return one[1] > two[1] end)
for _, task in ipairs(back) do
  give_back(task[2], task[3], task[4], task[5])
  if task[6] then call('HSET', task[6], 'state', task[3]) end
end
if ARGV[5] == '1' then
  local counts = call('HGETALL', KEYS[3])
  for at = 1, #counts, 2 do
    call('INCRBY', P .. counts[at], counts[at + 1])
    if string.find(counts[at], ':', 1, true) then call('EXPIRE', P .. counts[at], ARGV[4]) end
  end
else
  call('HSET', KEYS[1], 'before', head[2])
end
if back[1] or ARGV[5] == '1' then call('SADD', ARGV[6], ARGV[7]) end
call('DEL', KEYS[2], KEYS[3])
call('HDEL', KEYS[1], 'at')
return 1
