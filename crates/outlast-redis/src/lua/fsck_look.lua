-- Reads tasks and says whether each is where its state says, as far as that can be said quickly. KEYS[1] lease, [2] scheduled,
-- [3] retry, [4] archived, [5] completed. ARGV[1] the prefix of the queue's keys, [2] bytes after which no further task is read,
-- [3...] the ids. Answers a row per task that was read: false if it is gone, else {state, place, message or false, pending_since};
-- the place is y for there, n for not there, l for a list, which has to be searched. Writes nothing.
local sorted = {active = KEYS[1], scheduled = KEYS[2], retry = KEYS[3], archived = KEYS[4], completed = KEYS[5]}
local rows, bytes, most = {}, 0, tonumber(ARGV[2])
local function place_of(id, state, group)
  if state == 'outgoing' then return redis.call('HEXISTS', ARGV[1] .. 'outlast:outgoing', id) == 1 and 'y' or 'n' end
  local set = sorted[state]
  if state == 'aggregating' and group then set = ARGV[1] .. 'g:' .. group end
  local is_there = set and read_record('ZSCORE', set, id)
  if state == 'pending' or (state == 'active' and is_there) then return 'l' end
  return is_there and 'y' or 'n'
end
for nth = 3, #ARGV do
  if bytes >= most then break end
  local id = ARGV[nth]
  local key = ARGV[1] .. 't:' .. id
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then
    rows[#rows + 1] = false
  elseif kind ~= 'hash' then
    rows[#rows + 1] = {'', 'n', false, ''}
  else
    local found = redis.call('HMGET', key, 'state', 'msg', 'group', 'pending_since')
    bytes = bytes + #(found[2] or '')
    -- Of a record without its message it does not matter where it is.
    local is_task = found[2] or found[1] == 'outgoing'
    rows[#rows + 1] = {found[1] or '', is_task and place_of(id, found[1], found[3]) or 'n', found[2], found[4] or ''}
  end
end
return rows
