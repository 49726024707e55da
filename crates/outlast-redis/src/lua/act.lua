-- Acts on tasks by hand, each if its state allows it (law L5). KEYS[1] pending, [2] active, [3] lease, [4] scheduled, [5] retry,
-- [6] archived, [7] completed, [8] groups, [9] aggregation_sets. ARGV[1] the prefix of the queue's keys, [2] the root,
-- [3] the action: r run, a archive, d delete, c cancel, p set the payload, [4] the state that is expected or '', [5] now in
-- seconds, [6] now in nanoseconds, [7] the new payload as a field of a message, [8] and [9] between which places
-- from the running end of the pending list its ids should be, [10] '1' if they were looked for in all of it, [11] archived tasks kept at most, [12] seconds they are kept, then per task:
-- id, the command for its worker. Answers a letter per task:
-- '' done, N not there, A active, I not active, P pending, R archived already, G being aggregated, S not scheduled,
-- W to be looked for in the pending list first, X a message that cannot be read, F a worker that takes no more commands. A command lies in another slot of a cluster, where it
-- would be a call of its own.
local call = redis.call
local P, root, action, expected = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local sorted = {scheduled = KEYS[4], retry = KEYS[5], archived = KEYS[6], completed = KEYS[7]}
for nth = 1, 2 do call('LLEN', KEYS[nth]) end
for nth = 3, 7 do call('ZCARD', KEYS[nth]) end
call('SCARD', KEYS[8])

local cut = cutter(KEYS[1], tonumber(ARGV[8]), tonumber(ARGV[9]), #ARGV, ARGV[10] == '1')
local line, archived = {}, 0

local function leave(id, state, group)
  if sorted[state] then call('ZREM', sorted[state], id) end
  if state == 'aggregating' then
    call('ZREM', P .. 'g:' .. group, id)
    if call('EXISTS', P .. 'g:' .. group) == 0 then call('SREM', KEYS[8], group) end
  end
end
local function cancel(id, json)
  local score = call('ZSCORE', KEYS[3], id)
  if not score then return 'I' end
  local fraction = tonumber(score) % 1
  if fraction == 0 then
    call('PUBLISH', root .. ':cancel', id)
  elseif not tell(root, string.format('%.0f', fraction * 1048576), json) then
    return 'F'
  end
  return ''
end
local function set_payload(key, payload)
  local text, head, kept = call('HGET', key, 'msg') or '', '', {}
  local is_whole = each_field(text, function(field, _, from, to)
    if field == 1 then head = string.sub(text, from, to)
    elseif field ~= 2 then kept[#kept + 1] = string.sub(text, from, to) end
  end)
  if not is_whole then return 'X' end
  call('HSET', key, 'msg', head .. payload .. table.concat(kept))
  return ''
end
local function lock_of(key)
  local found = call('HMGET', key, 'unique_key', 'msg')
  -- Reading every message would cost more than all the rest.
  if found[1] or not found[2] or not string.find(found[2], ':unique:', 1, true) then return found[1] end
  return (read_message(found[2]) or {})[10]
end

local move = {
  r = function(id, key)
    line[#line + 1] = id
    call('HSET', key, 'state', 'pending', 'pending_since', ARGV[6])
  end,
  a = function(id, key)
    call('ZADD', KEYS[6], ARGV[5], id)
    call('HSET', key, 'state', 'archived')
    -- A success that comes late is not adopted by what was put away by hand.
    call('HDEL', key, 'o:run', 'pending_since')
    archived = archived + 1
  end,
  d = function(id, key)
    unlock(lock_of(key), id)
    call('DEL', key)
  end,
}

-- The letter of a task.
local function act(id, json)
  local key = P .. 't:' .. id
  local state = state_of(sorted, KEYS[3], id, key)
  if not state or state == 'outgoing' or (expected ~= '' and state ~= expected) then return 'N' end
  if action == 'c' then return state == 'active' and cancel(id, json) or 'I' end
  if action == 'p' then return state == 'scheduled' and set_payload(key, ARGV[7]) or 'S' end
  if state == 'active' then return 'A' end
  if action == 'r' and state == 'pending' then return 'P' end
  if action == 'a' and state == 'archived' then return 'R' end
  local group
  if state == 'aggregating' then
    group = call('HGET', key, 'group') or ''
    if not read_record('ZSCORE', P .. 'g:' .. group, id) then return 'G' end
  end
  if state == 'pending' and not cut.can(id) then return 'W' end
  leave(id, state, group)
  move[action](id, key)
  return ''
end

local letters = {}
for at = 13, #ARGV, 2 do letters[#letters + 1] = act(ARGV[at], ARGV[at + 1]) end
cut.all()
if line[1] then call('LPUSH', KEYS[1], unpack(line)) end
if archived > 0 then
  trim_archive(P, KEYS[6], tonumber(ARGV[5]), tonumber(ARGV[11]), tonumber(ARGV[12]), archived + TRIMMED_MAX)
end
return letters
