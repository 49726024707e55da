-- Puts a task that is in no collection where its state says (law L5: it keeps its state, or loses its lease as a sweep would
-- have it). Uses ARGV of fsck_task.lua.
local now_s, now_ns = ARGV[2], ARGV[3]
local function archive(id, key, why)
  call('ZADD', KEYS[6], now_s, id)
  call('HSET', key, 'state', 'archived')
  if why then call('HSET', key, 'o:why', why) end
end
-- A task whose worker vanished: retried soon, or given up after too many losses.
local function lose(id, key, text)
  local message, is_whole = without(text, {[7] = true, [11] = true})
  if not is_whole then return archive(id, key, 'the message cannot be read') end
  local losses = losses_of(call('HGET', key, 'o:lost')) + 1
  call('HSET', key, 'msg', message .. ARGV[8], 'o:lost', losses)
  if losses >= tonumber(ARGV[7]) then return archive(id, key) end
  call('ZADD', KEYS[5], tonumber(now_s) + math.min(losses, 5), id)
  call('HSET', key, 'state', 'retry')
end
local function wait_in_line(id, key)
  call('LPUSH', KEYS[1], id)
  call('HSET', key, 'state', 'pending', 'pending_since', now_ns)
end
local function put(id, key, state, text, message, group)
  if state == 'active' then
    lose(id, key, text)
  elseif state == 'pending' or (state == 'aggregating' and group == '') then
    wait_in_line(id, key)
  elseif state == 'aggregating' and read_record('ZCARD', P .. 'g:' .. group) == nil then
    archive(id, key, 'the key of its group holds data of another program')
  elseif state == 'aggregating' then
    call('ZADD', P .. 'g:' .. group, now_s, id)
    call('SADD', KEYS[8], group)
    call('SADD', KEYS[10], group)
    call('HSET', key, 'group', group)
  elseif state == 'scheduled' or state == 'retry' then
    call('ZADD', sorted[state], now_s, id)
  elseif state == 'completed' then
    local retention = message[12] or 0
    if retention >= 2 ^ 62 then retention = 0 end
    call('ZADD', KEYS[7], string.format('%.0f', tonumber(now_s) + retention), id)
  else
    archive(id, key)
  end
end
