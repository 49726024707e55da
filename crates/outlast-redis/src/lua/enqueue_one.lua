-- Stores one plain task, where everything is as it nearly always is; else it answers that it declines, with nothing written, and
-- enqueue_plain.lua decides. KEYS[1] the session's hash, [2] pending, [3] the task. ARGV[1...3] as in session.lua, [4] the set of
-- queues ('' if it is elsewhere), [5] the queue, [6] now in nanoseconds, [7] the id, [8] the message, [9] moment of acceptance or ''.
-- Answers the status alone.
local call, try = redis.call, redis.pcall
-- The first write: here a server whose memory is full refuses. In an untroubled lane this is both the question and the record.
local seq = try('HINCRBY', KEYS[1], ARGV[1], '1')
if type(seq) == 'table' then return 3 end
local expected = tonumber(ARGV[2])
if seq ~= expected or try('EXISTS', KEYS[3]) ~= 0 then
  if seq == 1 then call('HDEL', KEYS[1], ARGV[1]) else call('HINCRBY', KEYS[1], ARGV[1], '-1') end
  -- A repeat, and all was well the first time?
  return seq == expected + 1 and 1 or 3
end
local length = try('LPUSH', KEYS[2], ARGV[7])
-- A line that is not empty is listed; where another program has just taken it off the list, the sweep heals that.
local is_unlisted = length == 1 and ARGV[4] ~= '' and type(try('SADD', ARGV[4], ARGV[5])) == 'table'
if is_unlisted or type(length) == 'table' then
  if is_unlisted then call('LPOP', KEYS[2]) end
  if seq == 1 then call('HDEL', KEYS[1], ARGV[1]) else call('HINCRBY', KEYS[1], ARGV[1], '-1') end
  return 3
end
if ARGV[9] == '' then
  call('HSET', KEYS[3], 'msg', ARGV[8], 'state', 'pending', 'pending_since', ARGV[6])
else
  call('HSET', KEYS[3], 'msg', ARGV[8], 'state', 'pending', 'pending_since', ARGV[6], 'o:at', ARGV[9])
end
local live = tonumber(ARGV[3])
if live > 0 or seq == 1 then call('EXPIRE', KEYS[1], math.abs(live)) end
return 0
