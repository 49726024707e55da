-- Gives a unique lock back: not one that ran out and was taken by another task.
local function unlock(lock, id)
  if lock and lock ~= '' and redis.call('GET', lock) == id then redis.call('DEL', lock) end
end
