-- Reads tasks by their ids. KEYS[1] lease, [2] scheduled, [3] retry, [4] archived, [5] completed. ARGV[1] the prefix of the
-- queue's keys, [2] bytes after which no further task is read, [3...] the ids.
-- Answers a row per task that was read, in order: false if there is none, else {state, score or false, fields...}.
local sorted = {scheduled = KEYS[2], retry = KEYS[3], archived = KEYS[4], completed = KEYS[5]}
local rows, bytes, most = {}, 0, tonumber(ARGV[2])
for nth = 3, #ARGV do
  if bytes >= most then break end
  local id = ARGV[nth]
  local key = ARGV[1] .. 't:' .. id
  local found = read_record('HMGET', key, 'msg', 'pending_since', 'result', 'o:at', 'o:run', 'o:lost') or {}
  local state = state_of(sorted, KEYS[1], id, key)
  -- What is on its way to another broker is not here.
  if state ~= 'outgoing' and (state or found[1]) then
    bytes = bytes + #(found[1] or '') + #(found[3] or '')
    local set = state == 'active' and KEYS[1] or sorted[state or '']
    -- A nil would end the row.
    rows[#rows + 1] = {state or false, set and redis.call('ZSCORE', set, id) or false, unpack(found, 1, 6)}
  else
    rows[#rows + 1] = false
  end
end
return rows
