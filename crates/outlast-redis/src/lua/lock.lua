-- Gives a unique lock back: not one that ran out and was taken by another task, or by something that is no lock.
local function unlock(lock, id)
  if lock and lock ~= '' and redis.pcall('GET', lock) == id then redis.call('DEL', lock) end
end
