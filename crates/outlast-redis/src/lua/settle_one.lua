-- Ends one task that succeeded and leaves nothing behind, where everything is as it nearly always is; else it answers that it
-- declines, with nothing written, and settle_done.lua decides. KEYS[1] the session's hash, [2] active, [3] lease, [4] processed
-- today, [5] processed, [6] the task. ARGV[1...3] as in session.lua, [4] the fraction of the lease, [5] when today's counter
-- expires, [6] the id. Answers the status alone.
local call, try = redis.call, redis.pcall
local id = ARGV[6]
local score = call('ZSCORE', KEYS[3], id)
if not score or tonumber(score) % 1 ~= tonumber(ARGV[4]) then
  -- A repeat, and all was well the first time?
  if call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return 1 end
  return 3
end
local running = call('LLEN', KEYS[2])
-- A number is question and record in one. What turns out to be no number, or not the one that was expected, is taken back.
call('ZREM', KEYS[3], id)
local seq = try('HINCRBY', KEYS[1], ARGV[1], '1')
local total = seq == tonumber(ARGV[2]) and try('INCRBY', KEYS[5], '1')
-- At the end of what a number can hold settle_done.lua begins again.
local today = type(total) == 'number' and total < 9223372036854774784 and try('INCRBY', KEYS[4], '1')
if type(today) ~= 'number' or call('DEL', KEYS[6]) == 0 then
  if seq == 1 then call('HDEL', KEYS[1], ARGV[1]) elseif type(seq) == 'number' then call('HINCRBY', KEYS[1], ARGV[1], '-1') end
  if total == 1 then call('DEL', KEYS[5]) elseif type(total) == 'number' then call('INCRBY', KEYS[5], '-1') end
  if today == 1 then call('DEL', KEYS[4]) elseif type(today) == 'number' then call('INCRBY', KEYS[4], '-1') end
  call('ZADD', KEYS[3], score, id)
  return 3
end
-- In a long list it is looked for at the ends.
if running <= 1000 then call('LREM', KEYS[2], '1', id) else drop_active(KEYS[2], {id}) end
if today == 1 then call('EXPIREAT', KEYS[4], ARGV[5]) end
local live = tonumber(ARGV[3])
if live > 0 or seq == 1 then call('EXPIRE', KEYS[1], math.abs(live)) end
return 0
