-- A task as a move reads it: {id, state, score or '-', msg, pending_since, result, o:at, o:lost, group, o:group, unique_key}.
local call = redis.call
local function row_of(prefix, id, state, score)
  local found = read_record('HMGET', prefix .. 't:' .. id, 'msg', 'pending_since', 'result', 'o:at', 'o:lost', 'group', 'o:group',
    'unique_key') or {}
  return {id, state, score, unpack(found, 1, 8)}
end
