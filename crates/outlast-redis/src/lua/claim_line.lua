-- The line, from its head. Read first, written after: nothing is half done if a key cannot be read here.
local line = room > 0 and call('LRANGE', KEYS[2], '-' .. room, '-1') or {}
if line[1] and not line[2] and not sets[1] then
  -- One task in the shortest way.
  local id = line[1]
  local key = P .. 't:' .. id
  local found = read_record('HMGET', key, 'msg', 'result', 'o:at', 'o:lost')
  if found and found[1] then
    call('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT')
    local leased = redis.pcall('ZADD', KEYS[4], score, id)
    if type(leased) == 'table' then
      call('LMOVE', KEYS[3], KEYS[2], 'LEFT', 'RIGHT')
      return leased
    end
    call('HSET', key, 'state', 'active', 'o:run', ARGV[10])
    call('HDEL', key, 'pending_since')
    local rest = room == 1 and 'M' or 'E'
    remember(lost, 'c', {line, taken_sets, rest})
    return {APPLIED, lost, 'c', rest, {id, found[1], found[2], found[3], found[4]}, sets, ghosts}
  end
end
call('LLEN', KEYS[3])
local held, bytes_max = call('ZCARD', KEYS[4]), tonumber(ARGV[8])
local tasks, ids, keys, gone, bytes, taken = {}, {}, {}, {}, 0, 0
for nth = #line, 1, -1 do
  local id = line[nth]
  local key = P .. 't:' .. id
  local message, at = read_record('HGET', key, 'msg'), #tasks
  if message == nil then
    for nth = 1, 5 do tasks[at + nth] = nth == 1 and id end
  elseif not message then
    ghosts = ghosts + 1
    gone[#gone + 1] = key
  else
    bytes = bytes + #message
    if bytes > bytes_max then
      -- The message's size is a bound that is quick to know; what counts is the payload.
      bytes = bytes - #message + payload_size(message)
      if #ids > 0 and bytes > bytes_max then
        more = true
        break
      end
    end
    ids[#ids + 1] = id
    keys[#keys + 1] = key
    tasks[at + 1], tasks[at + 2] = id, message
    -- A task that has never run has nothing more to be read.
    local fields = call('HLEN', key)
    if fields <= 2 or (fields == 3 and call('HEXISTS', key, 'pending_since') == 1) then
      tasks[at + 3], tasks[at + 4], tasks[at + 5] = false, false, false
    else
      local found = call('HMGET', key, 'result', 'o:at', 'o:lost')
      tasks[at + 3], tasks[at + 4], tasks[at + 5] = found[1], found[2], found[3]
    end
  end
  taken = taken + 1
end
if taken > 0 then call('LTRIM', KEYS[2], '0', '-' .. taken + 1) end
for _, key in ipairs(gone) do drop_ghost(key) end
if ids[1] then
  call('LPUSH', KEYS[3], unpack(ids))
  -- In a packed list every insertion reads the scores before it as text: 20 µs each among a hundred. One long member makes
  -- it a skip list: zeros, which no id of a task holds, or its lease would go with it.
  local leases, long = {}, nil
  if held <= 128 and held + #ids > 8 and (held == 0 or call('OBJECT', 'ENCODING', KEYS[4]) == 'listpack') then
    long = string.rep('\0', 65)
    leases = {score, long}
  end
  for nth, id in ipairs(ids) do
    leases[#leases + 1] = score
    leases[#leases + 1] = id
    call('HSET', keys[nth], 'state', 'active', 'o:run', ARGV[10])
    call('HDEL', keys[nth], 'pending_since')
  end
  call('ZADD', KEYS[4], unpack(leases))
  if long then call('ZREM', KEYS[4], long) end
end
-- A line that was not longer than what was asked for has nothing more, as far as this claim has seen.
local rest = (more or #line == room) and 'M' or 'E'
if tasks[1] or sets[1] then remember(lost, 'c', {ids, taken_sets, rest}) end
return {APPLIED, lost, 'c', rest, tasks, sets, ghosts}
