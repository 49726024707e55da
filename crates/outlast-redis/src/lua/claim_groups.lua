-- Groups, by name, as far as their policies find them ready (contract §3.5, in its order, every bound inclusive).
local now_s, bytes_max = tonumber(ARGV[5]), tonumber(ARGV[8])
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
  local size = read_record('ZCARD', key) or 0
  if size == 0 then return nil end
  local most = tonumber(ARGV[13])
  if policy.size > 0 and policy.size < most then most = policy.size end
  local oldest = tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2])
  local newest = tonumber(call('ZRANGE', key, -1, -1, 'WITHSCORES')[2])
  local late = policy.delay and oldest + policy.delay <= now_s
  if size >= most or late or newest + policy.grace <= now_s then return math.min(most, size) end
end
local set_bytes = 0
-- Ends a set, and the taking of sets, where the bytes that are wanted are spent; the first member is taken whatever its size.
local function take_group(group, size)
  local key, name = P .. 'g:' .. group, group .. ':' .. ARGV[set_ids + #sets]
  local set, flat, members = P .. 'g:' .. name, {}, {}
  local found = call('ZRANGE', key, 0, size - 1, 'WITHSCORES')
  for at = 1, #found, 2 do
    local fields = read_record('HMGET', P .. 't:' .. found[at], 'msg', 'result', 'o:at', 'o:lost') or {}
    set_bytes = set_bytes + #(fields[1] or '')
    if set_bytes > bytes_max and (#members > 0 or #sets > 0) then
      sets_max, more = 0, true
      break
    end
    members[#members + 1] = found[at]
    for nth = 1, 4 do members[#members + 1] = fields[nth] or false end
    flat[#flat + 1] = found[at + 1]
    flat[#flat + 1] = found[at]
  end
  if #members == 0 then return end
  call('ZADD', set, unpack(flat))
  call('ZREMRANGEBYRANK', key, 0, #members / 5 - 1)
  if call('EXISTS', key) == 0 then call('SREM', KEYS[8], group) end
  call('ZADD', KEYS[9], score, set)
  sets[#sets + 1] = {name, members}
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
room = room - #sets
