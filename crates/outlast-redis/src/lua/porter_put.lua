-- Stores tasks of another broker in the states that they have, and adds its counters. KEYS[2] pending, [3] scheduled, [4] retry,
-- [5] archived, [6] completed, [7] groups, [8] groups that have been seen, [9...] the counters, then a hash per task.
-- ARGV[4] the set of queues, [5] the queue, [6] the prefix of its keys, [7] how many counters, then per counter: by how much,
-- when it expires in seconds ('' never), then per task: id, state, score, msg, pending_since, o:at, o:lost, '1' if it has a result,
-- the result, its unique lock, milliseconds that it holds ('' it does not), group, '1' if it joins it when it is due.
-- Answers {status, lost, verb, verdicts}: I a task with this id is there, D another task holds the lock.
local lost, earlier = arrive()
if not lost then return earlier end
local P, counters, ITEM = ARGV[6], tonumber(ARGV[7]), 13
local first = 8 + 2 * counters
local sorted = {scheduled = KEYS[3], retry = KEYS[4], archived = KEYS[5], completed = KEYS[6]}
call('LLEN', KEYS[2])
for nth = 3, 6 do call('ZCARD', KEYS[nth]) end
for nth = 7, 8 do call('SCARD', KEYS[nth]) end
call('SISMEMBER', ARGV[4], ARGV[5])
for nth = 1, counters do
  local count = call('GET', KEYS[8 + nth])
  -- Fails now and not when the tasks are stored.
  if count and not string.match(count, '^%-?%d+$') then call('INCRBY', KEYS[8 + nth], 0) end
end
for at = first, #ARGV, ITEM do
  if ARGV[at + 9] ~= '' then call('STRLEN', ARGV[at + 9]) end
  if ARGV[at + 1] == 'aggregating' then call('ZCARD', P .. 'g:' .. ARGV[at + 11]) end
end

local function place(id, state, score, group)
  if state == 'pending' then
    call('LPUSH', KEYS[2], id)
  elseif state == 'aggregating' then
    call('ZADD', P .. 'g:' .. group, score, id)
    call('SADD', KEYS[7], group)
    call('SADD', KEYS[8], group)
  else
    call('ZADD', sorted[state], score, id)
  end
end
local function store(at)
  local id, state, lock, ms, group = ARGV[at], ARGV[at + 1], ARGV[at + 9], ARGV[at + 10], ARGV[at + 11]
  local key = P .. 't:' .. id
  if call('EXISTS', key) == 1 then return 'I', id end
  if lock ~= '' and ms ~= '' then
    local holder = call('GET', lock)
    if holder then return 'D', holder end
    call('SET', lock, id, 'PX', ms)
  end
  local fields = {'msg', ARGV[at + 3], 'state', state}
  local function field(name, value, is_there)
    if is_there then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  field('pending_since', ARGV[at + 4], ARGV[at + 4] ~= '')
  field('o:at', ARGV[at + 5], ARGV[at + 5] ~= '')
  field('o:lost', ARGV[at + 6], ARGV[at + 6] ~= '')
  field('result', ARGV[at + 8], ARGV[at + 7] == '1')
  field('unique_key', lock, lock ~= '')
  -- As put.lua has it: `group` is for members, and makes Go's forwarder hide the task that is not one yet.
  field(state == 'aggregating' and 'group' or 'o:group', group, group ~= '' and (state == 'aggregating' or ARGV[at + 12] == '1'))
  call('HSET', key, unpack(fields))
  place(id, state, ARGV[at + 2], group)
  return nil
end

local verdicts = {}
for nth = 1, (#ARGV - first + 1) / ITEM do
  local verdict, of = store(first + (nth - 1) * ITEM)
  if verdict then verdicts[#verdicts + 1] = {nth, verdict, of} end
end
for nth = 1, counters do
  call('INCRBY', KEYS[8 + nth], ARGV[6 + 2 * nth])
  if ARGV[7 + 2 * nth] ~= '' then call('EXPIREAT', KEYS[8 + nth], ARGV[7 + 2 * nth]) end
end
call('SADD', ARGV[4], ARGV[5])
remember(lost, 'p', verdicts[1] and verdicts)
return {APPLIED, lost, 'p', verdicts}
