-- Deletes tasks that are over, with the locks that they may still hold. Data of another program at their keys is left alone.
local function delete_over(prefix, from, ids)
  for _, id in ipairs(ids) do
    local key = prefix .. 't:' .. id
    local found = read_record('HMGET', key, 'unique_key', 'msg')
    if found then
      local lock = found[1] or (found[2] and (read_message(found[2]) or {})[10])
      unlock(lock, id)
      redis.call('DEL', key)
    end
  end
  if ids[1] then redis.call('ZREM', from, unpack(ids)) end
  return #ids
end
-- Keeps an archive within its bounds: the oldest of more than `keep` tasks go, and those of `age` seconds, up to `most`.
-- Answers how many went.
local function trim_archive(prefix, archived, now, keep, age, most)
  local gone, excess = 0, math.min(redis.call('ZCARD', archived) - keep, most)
  if excess > 0 then gone = delete_over(prefix, archived, redis.call('ZRANGE', archived, 0, excess - 1)) end
  if gone >= most then return gone end
  local old = redis.call('ZRANGE', archived, '-inf', now - age, 'BYSCORE', 'LIMIT', 0, most - gone)
  return gone + delete_over(prefix, archived, old)
end
-- Beside the tasks that a call has archived, so many older ones go at most: the archive stays within its bounds without a sweep.
local TRIMMED_MAX = 100
