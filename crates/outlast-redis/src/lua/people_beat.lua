-- A worker's sign of life, and what it is asked to do.
-- KEYS[1] servers, [2] workers, [3] its ServerInfo, [4] its tasks, [5] its own record (3 to 5: one slot), [6] its commands.
-- ARGV[1] until when in seconds, [2] seconds to live, [3] '' or 'gone', [4] '1' if the tasks are written, [5] the number of
-- the last command it has seen, [6] commands per beat, [7] ServerInfo, [8] record, [9...] ids and WorkerInfos of the tasks.
-- Answers the commands. In a Cluster: 1, 2, 3 to 5, and 6 one after the other; nothing here depends on another part.
local call = redis.call
if ARGV[3] == 'gone' then
  call('ZREM', KEYS[1], KEYS[3])
  call('ZREM', KEYS[2], KEYS[4])
  call('DEL', KEYS[3], KEYS[4], KEYS[5])
else
  call('ZADD', KEYS[1], ARGV[1], KEYS[3])
  call('SETEX', KEYS[3], ARGV[2], ARGV[7])
  call('SETEX', KEYS[5], ARGV[2], ARGV[8])
  if ARGV[4] == '1' then call('DEL', KEYS[4]) end
  if #ARGV > 8 then
    call('HSET', KEYS[4], unpack(ARGV, 9))
    call('EXPIRE', KEYS[4], ARGV[2])
    call('ZADD', KEYS[2], ARGV[1], KEYS[4])
  end
end
local seen, most = tonumber(ARGV[5]), tonumber(ARGV[6])
-- After a loss of data the numbers begin again: what the worker has seen was of another count.
if seen > 0 and seen < 2 ^ 53 then
  local counter = string.gsub(KEYS[6], ':commands:%d+$', ':command')
  if (tonumber(call('GET', counter) or '') or 0) < seen then seen = 0 end
end
while true do
  local waiting, old = call('LRANGE', KEYS[6], 0, most - 1), 0
  -- What has no number was not written by us, and can never be seen: it goes with the rest.
  while old < #waiting and (tonumber(string.match(waiting[old + 1], '^%d+ ')) or 0) <= seen do old = old + 1 end
  if old > 0 then call('LTRIM', KEYS[6], old, -1) end
  if old == 0 or old < #waiting then return {unpack(waiting, old + 1)} end
end
