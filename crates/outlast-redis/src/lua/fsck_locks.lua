-- Decides about unique locks: each belongs to a task that exists and names it. KEYS the locks. ARGV[1] the prefix of the queue's
-- keys, [2] '1' to give stale ones back. Answers per lock {defect or '', the task}.
local call = redis.call
local function defect_of(lock)
  local kind = call('TYPE', lock).ok
  if kind == 'none' then return '', '' end
  if kind ~= 'string' then return 'foreign_key', '' end
  local id = call('GET', lock)
  local key = ARGV[1] .. 't:' .. id
  local record = call('TYPE', key).ok == 'hash' and call('HMGET', key, 'unique_key', 'msg') or {}
  if record[1] == lock then return '', id end
  if record[2] then
    local message = read_message(record[2])
    -- Of a message that cannot be read nobody can say what it holds.
    if not message or message[10] == lock then return '', id end
  end
  if ARGV[2] == '1' then call('DEL', lock) end
  return 'stale_lock', id
end
local answers = {}
for nth, lock in ipairs(KEYS) do answers[nth] = {defect_of(lock)} end
return answers
