-- Takes a batch of tasks out of everybody's reach, or answers the one that is on its way. Their hashes and locks stay, so that the
-- ids stay taken; the state in them is `outgoing`, which no verb knows (no transition: they leave, or come back as they were).
-- KEYS[1] the queue's move, [2] the tasks on their way, [3] the counters on their way, [4] pending, [5] scheduled, [6] retry,
-- [7] archived, [8] completed, [9] groups, [10] groups that have been seen, [11...] the counters. ARGV[1] the prefix of the queue's
-- keys, [2] the target ('': only what is on its way is asked for), [3] the name of a new session, [4] now in ms, [5] tasks at most,
-- [6] bytes after which no further task is taken, [7] how many counters, then their names, then ids to be passed over.
-- Answers {'E'} there is nothing, {'T', target} a batch is on its way to another target, or {'B', session, number, the number of the
-- last one that was stored, taken at, rows as in porter_row.lua, counters}. Only what is answered is read: a step is bounded by its arguments.
local P = ARGV[1]
local function answer()
  local kept, rows = call('HGETALL', KEYS[2]), {}
  for at = 1, #kept, 2 do
    local nth, state, score = string.match(kept[at + 1], '^(%d+) (%S+) (%S+)')
    -- A ghost was taken, and its id has been given to another task since: that one does not travel.
    local is_ours = read_record('HGET', P .. 't:' .. kept[at], 'state') == 'outgoing'
    rows[tonumber(nth)] = is_ours and row_of(P, kept[at], state, score) or {kept[at], state, score}
  end
  local head = call('HMGET', KEYS[1], 's', 'n', 'before', 'at')
  return {'B', head[1], head[2], head[3], head[4], rows, call('HGETALL', KEYS[3])}
end

local before = call('HMGET', KEYS[1], 'to', 's', 'n', 'at', 'before')
if before[4] then
  if ARGV[2] ~= '' and before[1] ~= ARGV[2] then return {'T', before[1]} end
  return answer()
end
if ARGV[2] == '' then return {'E'} end
call('HLEN', KEYS[2])
call('HLEN', KEYS[3])
call('LLEN', KEYS[4])
for nth = 5, 8 do call('ZCARD', KEYS[nth]) end
for nth = 9, 10 do call('SCARD', KEYS[nth]) end

-- Read first, written after: a key of another kind fails the script before anything has left its place.
local most, bytes_max, counters = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local passed, passes = {}, #ARGV - 7 - counters
for at = 8 + counters, #ARGV do passed[ARGV[at]] = true end
local picked, seen, bytes, leaving = {}, {}, 0, {}
local function is_full() return #picked >= most or bytes >= bytes_max end
-- True if the task goes with the batch.
local function pick(id, state, score, group)
  if passed[id] or is_full() then return false end
  if not seen[id] then
    local key = P .. 't:' .. id
    bytes = bytes + (read_record('HSTRLEN', key, 'msg') or 0) + (read_record('HSTRLEN', key, 'result') or 0)
    picked[#picked + 1] = {id, state, score, group or ''}
    seen[id] = true
  end
  return true
end
local line, is_stretch = {}, true
local function pick_pending()
  local ids = call('LRANGE', KEYS[4], -(most + passes), -1)
  for at = #ids, 1, -1 do
    if is_full() then break end
    if pick(ids[at], 'pending', '-') then line[#line + 1] = ids[at] else is_stretch = false end
  end
end
local function pick_sorted(set, state, group)
  if is_full() then return end
  local found = call('ZRANGE', set, 0, most + passes - 1, 'WITHSCORES')
  for at = 1, #found, 2 do
    if pick(found[at], state, found[at + 1], group) then leaving[#leaving + 1] = {set, found[at]} end
  end
end
local groups = {}
local function pick_members(listed)
  for _, group in ipairs(call('SRANDMEMBER', listed, most + passes)) do
    if is_full() then return end
    pick_sorted(P .. 'g:' .. group, 'aggregating', group)
    groups[#groups + 1] = group
  end
end
pick_pending()
pick_sorted(KEYS[5], 'scheduled')
pick_sorted(KEYS[6], 'retry')
pick_members(KEYS[9])
pick_members(KEYS[10])
pick_sorted(KEYS[7], 'archived')
pick_sorted(KEYS[8], 'completed')

local counts = {}
if not picked[1] then
  for nth = 1, counters do
    local count = call('GET', KEYS[10 + nth])
    if count then counts[#counts + 1] = {nth, count} end
  end
  if not counts[1] then return {'E'} end
end

-- Left by a move that somebody else has deleted.
call('DEL', KEYS[2], KEYS[3])
if line[1] and is_stretch then
  call('LTRIM', KEYS[4], 0, -#line - 1)
else
  -- Near the end from which they are looked for.
  for _, id in ipairs(line) do call('LREM', KEYS[4], -1, id) end
end
for _, member in ipairs(leaving) do call('ZREM', member[1], member[2]) end
for _, group in ipairs(groups) do
  if call('EXISTS', P .. 'g:' .. group) == 0 then
    call('SREM', KEYS[9], group)
    call('SREM', KEYS[10], group)
  end
end
for _, count in ipairs(counts) do
  call('HSET', KEYS[3], ARGV[7 + count[1]], count[2])
  call('DEL', KEYS[10 + count[1]])
end
for nth, task in ipairs(picked) do
  local key = P .. 't:' .. task[1]
  call('HSET', KEYS[2], task[1], nth .. ' ' .. task[2] .. ' ' .. task[3] .. ' ' .. task[4])
  -- A ghost has no record: it gets none. Data of another program is left alone.
  if (read_record('HLEN', key) or 0) > 0 then call('HSET', key, 'state', 'outgoing') end
end
local is_same = before[1] == ARGV[2]
local last = is_same and tonumber(before[3]) or 0
local number = string.format('%.0f', math.max(last + 1, tonumber(ARGV[4])))
call('HSET', KEYS[1], 'to', ARGV[2], 's', is_same and before[2] or ARGV[3], 'n', number,
  'before', is_same and before[5] or '0', 'at', ARGV[4])
return answer()
