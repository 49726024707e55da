-- Reads of a task's hash. Nil where its key holds data of another program: that is one task's trouble, not its queue's.
-- Any other error is as it would be without this.
local function read_record(command, key, ...)
  local found = redis.pcall(command, key, ...)
  if type(found) ~= 'table' or not found.err then return found end
  if string.find(found.err, 'WRONGTYPE', 1, true) then return nil end
  return redis.call(command, key, ...)
end
