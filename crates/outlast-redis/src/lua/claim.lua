-- Leases tasks. KEYS[2] pending, [3] active, [4] lease, [5] paused, [6] scheduled, [7] retry, [8] groups,
-- [9] aggregation_sets. ARGV[4] the prefix of the queue's keys, [5] now in seconds (with fraction), [6] now in nanoseconds,
-- [7] tasks at most, [8] payload bytes at most, [9] the lease's score, [10] the value of o:run, [11] due tasks moved
-- at most, [12] groups looked at most, [13] the greatest set, [14] sets at most, [15] the number of policies, then per policy: pattern,
-- 'p' for a prefix, grace, greatest delay or '', greatest size or '0'; then one id per set that may be made.
-- Answers {status, lost, verb, rest, tasks, sets, ghosts}.
local LONG = string.rep('-', 65)
local P, now_s, now_ns = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local want, bytes_max, score = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]

local function fields_of(id)
  return call('HMGET', P .. 't:' .. id, 'msg', 'result', 'o:at', 'o:lost')
end
local function members_of(ids)
  local members = {}
  for _, id in ipairs(ids) do members[#members + 1] = {id, unpack(fields_of(id), 1, 4)} end
  return members
end
local function ours(found)
  return found and tonumber(found) % 1 == tonumber(score) % 1
end

-- What an earlier call of this number took, as far as it is still held.
local function again(lost, taken)
  local tasks, sets = {}, {}
  for _, id in ipairs(taken[1] or {}) do
    local held = call('ZSCORE', KEYS[4], id)
    if ours(held) then
      local found = fields_of(id)
      tasks[#tasks + 1] = {id, held, call('HGET', P .. 't:' .. id, 'o:run'), unpack(found, 1, 4)}
    end
  end
  for _, set in ipairs(taken[2] or {}) do
    local held = call('ZSCORE', KEYS[9], P .. 'g:' .. set)
    if ours(held) then
      sets[#sets + 1] = {set, held, members_of(call('ZRANGE', P .. 'g:' .. set, 0, -1))}
    end
  end
  local rest = call('LLEN', KEYS[2]) > 0 and 'M' or 'E'
  return {REPEATED, lost, 'c', taken[3] or rest, tasks, sets, 0}
end

local lost, earlier = arrive()
if not lost then
  if earlier[1] == REPEATED and earlier[3] == 'c' then return again(earlier[2], earlier[4]) end
  return earlier
end
if call('EXISTS', KEYS[5]) == 1 then return {APPLIED, lost, 'c', 'P', {}, {}, 0} end

-- Nothing is written before everything is known to be what it should be.
call('LLEN', KEYS[2])
call('LLEN', KEYS[3])
call('ZCARD', KEYS[4])
call('SCARD', KEYS[8])
call('ZCARD', KEYS[9])

promote({scheduled = KEYS[6], retry = KEYS[7], pending = KEYS[2], groups = KEYS[8], prefix = P}, now_s, now_ns, ARGV[11])

-- Groups, by name, as far as their policies find them ready (contract §3.5, in its order, every bound inclusive).
local policies, set_ids, sets_max = {}, 16, tonumber(ARGV[14])
for _ = 1, tonumber(ARGV[15]) do
  policies[#policies + 1] = {pattern = ARGV[set_ids], prefix = ARGV[set_ids + 1] == 'p', grace = tonumber(ARGV[set_ids + 2]),
    delay = tonumber(ARGV[set_ids + 3]), size = tonumber(ARGV[set_ids + 4])}
  set_ids = set_ids + 5
end
local function policy_of(group)
  for _, policy in ipairs(policies) do
    if policy.prefix and string.sub(group, 1, #policy.pattern) == policy.pattern then return policy end
    if not policy.prefix and group == policy.pattern then return policy end
  end
end
local function ready_size(group)
  local policy = policy_of(group)
  if not policy then return nil end
  local key = P .. 'g:' .. group
  local size = call('ZCARD', key)
  if size == 0 then return nil end
  local most = tonumber(ARGV[13])
  if policy.size > 0 and policy.size < most then most = policy.size end
  local oldest = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  local newest = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
  local late = policy.delay and oldest + policy.delay <= now_s
  if size >= most or late or newest + policy.grace <= now_s then return math.min(most, size) end
end
local sets, taken_sets, more = {}, {}, false
local function take_group(group, size)
  local key, name = P .. 'g:' .. group, group .. ':' .. ARGV[set_ids + #sets]
  local set, flat, ids = P .. 'g:' .. name, {}, {}
  local found = call('ZRANGE', key, 0, size - 1, 'WITHSCORES')
  for at = 1, #found, 2 do
    ids[#ids + 1] = found[at]
    flat[#flat + 1] = found[at + 1]
    flat[#flat + 1] = found[at]
  end
  call('ZADD', set, unpack(flat))
  call('ZREMRANGEBYRANK', key, 0, size - 1)
  if call('EXISTS', key) == 0 then call('SREM', KEYS[8], group) end
  call('ZADD', KEYS[9], score, set)
  sets[#sets + 1] = {name, score, members_of(ids)}
  taken_sets[#taken_sets + 1] = name
end
if #policies > 0 then
  local most = tonumber(ARGV[12])
  local groups = call('SCARD', KEYS[8]) > most and call('SRANDMEMBER', KEYS[8], most) or call('SMEMBERS', KEYS[8])
  table.sort(groups)
  for _, group in ipairs(groups) do
    local size = ready_size(group)
    while size and #sets < sets_max do
      take_group(group, size)
      size = ready_size(group)
    end
    if size then
      more = true
      break
    end
  end
end

-- The line, from its head. Read first, written after: nothing is half done if a key cannot be read here.
local tasks, ids, bytes, taken = {}, {}, 0, 0
local room = want - #sets
if room > 0 then
  local line = call('LRANGE', KEYS[2], -room, -1)
  for nth = #line, 1, -1 do
    local id = line[nth]
    local found = fields_of(id)
    local message = found[1]
    if message then
      bytes = bytes + #message
      if bytes > bytes_max then
        -- The message's size is a bound that is quick to know; what counts is the payload.
        bytes = bytes - #message + payload_size(message)
        if #ids > 0 and bytes > bytes_max then break end
      end
      ids[#ids + 1] = id
      tasks[#tasks + 1] = {id, score, ARGV[10], unpack(found, 1, 4)}
    end
    taken = taken + 1
  end
end
if taken > 0 then call('LTRIM', KEYS[2], 0, -taken - 1) end
if #ids > 0 then
  call('LPUSH', KEYS[3], unpack(ids))
  local leases = {}
  -- In a packed list every insertion reads the scores before it as text: 20 µs each among a hundred. One long member makes
  -- it a skip list.
  local held = call('ZCARD', KEYS[4])
  local is_packed = held <= 128 and held + #ids > 8 and (held == 0 or call('OBJECT', 'ENCODING', KEYS[4]) == 'listpack')
  if is_packed then leases = {score, LONG} end
  for _, id in ipairs(ids) do
    leases[#leases + 1] = score
    leases[#leases + 1] = id
    local key = P .. 't:' .. id
    call('HSET', key, 'state', 'active', 'o:run', ARGV[10])
    call('HDEL', key, 'pending_since')
  end
  call('ZADD', KEYS[4], unpack(leases))
  if is_packed then call('ZREM', KEYS[4], LONG) end
end
local rest = (more or call('LLEN', KEYS[2]) > 0) and 'M' or 'E'
if #ids > 0 or #sets > 0 then remember(lost, 'c', {ids, taken_sets, rest}) end
return {APPLIED, lost, 'c', rest, tasks, sets, taken - #ids}
