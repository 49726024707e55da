-- The line, from its head. Read first, written after: nothing is half done if a key cannot be read here.
local tasks, ids, keys, bytes, taken = {}, {}, {}, 0, 0
local room = want - #sets
if room > 0 then
  local line = call('LRANGE', KEYS[2], -room, -1)
  for nth = #line, 1, -1 do
    local id = line[nth]
    local key = P .. 't:' .. id
    local message = read_record('HGET', key, 'msg')
    if message == nil then
      tasks[#tasks + 1] = {id, score, ARGV[10]}
    elseif not message then
      ghosts = ghosts + 1
    else
      bytes = bytes + #message
      if bytes > bytes_max then
        -- The message's size is a bound that is quick to know; what counts is the payload.
        bytes = bytes - #message + payload_size(message)
        if #ids > 0 and bytes > bytes_max then break end
      end
      ids[#ids + 1] = id
      keys[#keys + 1] = key
      -- A task that has never run has nothing more to be read.
      local fields = call('HLEN', key)
      if fields <= 2 or (fields == 3 and call('HEXISTS', key, 'pending_since') == 1) then
        tasks[#tasks + 1] = {id, score, ARGV[10], message}
      else
        tasks[#tasks + 1] = {id, score, ARGV[10], message, unpack(call('HMGET', key, 'result', 'o:at', 'o:lost'), 1, 3)}
      end
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
  local is_packed = held <= 128 and held + #ids > 8 and (held == 0 or call('OBJECT', 'ENCODING', KEYS[4]) == 'listpack')
  if is_packed then leases = {score, LONG} end
  for nth, id in ipairs(ids) do
    leases[#leases + 1] = score
    leases[#leases + 1] = id
    local key = keys[nth]
    call('HSET', key, 'state', 'active', 'o:run', ARGV[10])
    call('HDEL', key, 'pending_since')
  end
  call('ZADD', KEYS[4], unpack(leases))
  if is_packed then call('ZREM', KEYS[4], LONG) end
end
local rest = (more or call('LLEN', KEYS[2]) > 0) and 'M' or 'E'
if #tasks > 0 or #sets > 0 then remember(lost, 'c', {ids, taken_sets, rest}) end
return {APPLIED, lost, 'c', rest, tasks, sets, ghosts}
