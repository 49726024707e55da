-- Records how runs ended: first the fence, then the outcome, one by one.
-- KEYS[2] active, [3] lease, [4] pending, [5] scheduled, [6] retry, [7] archived, [8] completed, [9] groups,
-- [10] aggregation_sets, [11] processed today, [12] failed today, [13] processed, [14] failed.
-- ARGV[4] the prefix of the queue's keys, [5] now in seconds, [6] now in nanoseconds, [7] when today's counters expire,
-- [8] completed_at as bytes of a message, [9] our text of a lost lease, [10] asynq's, [11] archived tasks kept at most, [12] seconds they are kept, [13] the number of settlements,
-- then per settlement: id, fraction, kind, and what the kind needs; then the tasks that stand for sets, as in put.lua.
-- Kinds: d done (has a result, it) · r retry (when, error as bytes, '1' if spent) · s snooze (when) · a archive (-, error)
-- · v revoke · l release · g aggregated (-, which task) · x wrong (-, why).
-- Answers {status, lost, verb, verdicts}; a settlement without a verdict was applied.
local lost, earlier = arrive()
if not lost then return earlier end
local P, now_s, now_ns = ARGV[4], ARGV[5], ARGV[6]
local ITEM = 6
local FIRST, count = 14, tonumber(ARGV[13])
local first_put = FIRST + count * ITEM
local place = {pending = KEYS[4], scheduled = KEYS[5], groups = KEYS[9], prefix = P}
check_places(place)
call('LLEN', KEYS[2])
for nth = 6, 8 do call('ZCARD', KEYS[nth]) end
call('ZCARD', KEYS[10])
local counted = check_counters({KEYS[11], KEYS[12], KEYS[13], KEYS[14]}, 3)
for nth = 1, count do
  local id, kind = ARGV[FIRST + (nth - 1) * ITEM], ARGV[FIRST + 2 + (nth - 1) * ITEM]
  call('HLEN', P .. 't:' .. id)
  call('ZCARD', P .. 'g:' .. id)
  -- A set that is released goes back to its group.
  local group = kind == 'l' and string.match(id, '^(.*):[^:]*$')
  if group then call('ZCARD', P .. 'g:' .. group) end
end
for at = first_put, #ARGV, PUT_ARGS do check_put(place, at) end
local processed, failed, archived = 0, 0, 0

local function leave(id)
  drop_active(KEYS[2], {id})
  call('ZREM', KEYS[3], id)
end
local function lock_of(key, message)
  return message[10] or call('HGET', key, 'unique_key')
end
local function remove(id, key)
  local message = read_message(call('HGET', key, 'msg') or '') or {}
  unlock(lock_of(key, message), id)
  call('DEL', key)
end
local function done(id, key, has_result, result)
  local text = call('HGET', key, 'msg') or ''
  local message = read_message(text) or {}
  local retention = message[12] or 0
  processed = processed + 1
  if retention <= 0 or retention >= 2 ^ 62 then
    unlock(lock_of(key, message), id)
    call('DEL', key)
    return
  end
  call('ZADD', KEYS[8], string.format('%.0f', tonumber(now_s) + retention), id)
  call('HSET', key, 'state', 'completed', 'msg', without(text, {[13] = true}) .. ARGV[8])
  if has_result == '1' then call('HSET', key, 'result', result) end
  unlock(lock_of(key, message), id)
end
-- The message with the error of a run that ended.
local function failing(key, fields, retried, error)
  local text = without(call('HGET', key, 'msg') or '', fields)
  return text .. (retried and number_field(6, retried) or '') .. error
end
local function retried_of(key)
  local message = read_message(call('HGET', key, 'msg') or '') or {}
  return message[6] or 0
end

local apply = {
  d = function(id, key, at) done(id, key, ARGV[at], ARGV[at + 1]) end,
  r = function(id, key, at)
    local retried = retried_of(key)
    if ARGV[at + 2] == '1' then
      retried = retried + 1
      processed, failed = processed + 1, failed + 1
    end
    call('ZADD', KEYS[6], ARGV[at], id)
    call('HSET', key, 'state', 'retry', 'msg', failing(key, {[6] = true, [7] = true, [11] = true}, retried, ARGV[at + 1]))
  end,
  s = function(id, key, at)
    call('ZADD', KEYS[5], ARGV[at], id)
    call('HSET', key, 'state', 'scheduled')
  end,
  a = function(id, key, at)
    processed, failed, archived = processed + 1, failed + 1, archived + 1
    call('ZADD', KEYS[7], now_s, id)
    call('HSET', key, 'state', 'archived', 'msg', failing(key, {[7] = true, [11] = true}, nil, ARGV[at + 1]))
  end,
  v = function(id, key)
    processed = processed + 1
    remove(id, key)
  end,
  l = function(id, key)
    call('RPUSH', KEYS[4], id)
    call('HSET', key, 'state', 'pending', 'pending_since', now_ns)
  end,
}

-- Sets of groups.
local function end_set(set)
  call('DEL', set)
  call('ZREM', KEYS[10], set)
end
local function release_set(set, name)
  local group = string.match(name, '^(.*):[^:]*$')
  local members = call('ZRANGE', set, 0, -1, 'WITHSCORES')
  for at = 1, #members, 2 do call('ZADD', P .. 'g:' .. group, members[at + 1], members[at]) end
  if members[1] then call('SADD', KEYS[9], group) end
  end_set(set)
end
local function aggregate(set, at)
  local into = first_put + tonumber(ARGV[at + 1]) * PUT_ARGS
  local verdict, of = put(place, now_ns, into)
  if verdict == 'D' then return 'X', 'task ' .. ARGV[into] .. ' is a duplicate of ' .. of end
  if verdict then return 'X', 'a task with the id ' .. ARGV[into] .. ' exists' end
  for _, id in ipairs(call('ZRANGE', set, 0, -1)) do remove(id, P .. 't:' .. id) end
  end_set(set)
end
local function settle_set(set, name, kind, at)
  if kind == 'g' then return aggregate(set, at) end
  if kind == 'x' then return 'X', ARGV[at + 1] end
  if kind ~= 'l' then return 'X', 'an aggregation set can only be aggregated or released' end
  release_set(set, name)
end

-- A late success of the worker that lost the lease, if nobody has started the task since.
local function adopt(id, key, fraction, at)
  local found = call('HMGET', key, 'state', 'o:run', 'msg')
  local from = found[1] == 'retry' and KEYS[6] or found[1] == 'archived' and KEYS[7]
  local token = found[2] and string.match(found[2], ':(%d+)$')
  if not from or not token or tonumber(token) / 1048576 ~= fraction then return 'L', '' end
  local message = read_message(found[3] or '') or {}
  if message[7] ~= ARGV[9] and message[7] ~= ARGV[10] then return 'L', '' end
  if call('ZREM', from, id) == 0 then return 'L', '' end
  apply.d(id, key, at)
  return 'A', ''
end

local function settle(at)
  local id, fraction, kind = ARGV[at], tonumber(ARGV[at + 1]), ARGV[at + 2]
  local key, set = P .. 't:' .. id, P .. 'g:' .. id
  local score = call('ZSCORE', KEYS[3], id)
  if score and tonumber(score) % 1 == fraction then
    if call('HEXISTS', key, 'msg') == 0 then
      -- A lease without its task: nothing is left that an outcome could be written to.
      leave(id)
      drop_ghost(key)
      return 'L', ''
    end
    if kind == 'x' then return 'X', ARGV[at + 4] end
    if kind == 'g' then return 'X', 'the lease is of a task, not of a set' end
    leave(id)
    apply[kind](id, key, at + 3)
    return nil
  end
  local held = not score and call('ZSCORE', KEYS[10], set)
  if held and tonumber(held) % 1 == fraction then return settle_set(set, id, kind, at + 3) end
  if not score and kind == 'd' then return adopt(id, key, fraction, at + 3) end
  return 'L', ''
end

local verdicts = {}
for nth = 1, count do
  local verdict, why = settle(FIRST + (nth - 1) * ITEM)
  if verdict then verdicts[#verdicts + 1] = {nth, verdict, why} end
end
if processed > 0 then
  count_day(KEYS[11], processed, ARGV[7])
  count_total(KEYS[13], counted[3], processed)
end
if failed > 0 then
  count_day(KEYS[12], failed, ARGV[7])
  count_total(KEYS[14], counted[3], failed)
end
if archived > 0 then trim_archive(P, KEYS[7], now_s, tonumber(ARGV[11]), tonumber(ARGV[12]), archived + TRIMMED_MAX) end
remember(lost, 's', verdicts[1] and verdicts)
return {APPLIED, lost, 's', verdicts}
