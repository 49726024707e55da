-- Reads of a task's hash. Nil where its key holds data of another program: that is one task's trouble, not its queue's.
-- Any other error is as it would be without this.
local function read_record(command, key, ...)
  local found = redis.pcall(command, key, ...)
  if type(found) ~= 'table' or not found.err then return found end
  if string.find(found.err, 'WRONGTYPE', 1, true) then return nil end
  return redis.call(command, key, ...)
end
-- How many leases a task has lost, as its record says. What is no number counts for none: it must not end the taking back of
-- leases for its whole queue.
local function losses_of(text)
  return text and string.find(text, '^%d+$') and math.min(tonumber(text), 1000000) or 0
end
-- A record without its message is no task, and keeps its id taken for ever: what a dequeue of Go's makes of an id whose task has
-- gone, or a result that came late (contract §5.4, cases 1 and 11). Data of another program, and what is on its way to
-- another broker, stays.
local function drop_ghost(key)
  local found = read_record('HMGET', key, 'msg', 'state')
  if found and not found[1] and found[2] ~= 'outgoing' then redis.call('DEL', key) end
end
