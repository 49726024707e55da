-- Leases one task, where everything is as it nearly always is; else it answers that it declines, with nothing written, and
-- claim.lua decides. KEYS as there, without groups. ARGV[1...3] as in session.lua, [4] the prefix of tasks, [5] now in seconds
-- (with fraction), [6] the lease's score, [7] the value of o:run. Answers {status, -1, verb, id, msg, result, o:at, o:lost}.
local call, try = redis.call, redis.pcall
local kept = call('HGET', KEYS[1], ARGV[1])
if (kept and tonumber(string.match(kept, '^%d+')) or 0) + 1 ~= tonumber(ARGV[2]) then
  local taken = kept and string.match(kept, '^' .. ARGV[2] .. ' c(.*)$')
  if taken then return {1, -1, 'c', {{taken}, {}, 'M'}} end
  return {3}
end
if call('EXISTS', KEYS[5], KEYS[6], KEYS[7]) > 0 then
  if call('EXISTS', KEYS[5]) == 1 then return {3} end
  if call('ZCOUNT', KEYS[6], '-inf', ARGV[5]) + call('ZCOUNT', KEYS[7], '-inf', ARGV[5]) > 0 then return {3} end
end
local id = try('LMOVE', KEYS[2], KEYS[3], 'RIGHT', 'LEFT')
if not id then return {0, -1, 'c'} end
if type(id) == 'table' then return {3} end
local key = ARGV[4] .. id
local found = try('HMGET', key, 'msg', 'result', 'o:at', 'o:lost')
if found.err or not found[1] or type(try('ZADD', KEYS[4], ARGV[6], id)) == 'table' then
  call('LMOVE', KEYS[3], KEYS[2], 'LEFT', 'RIGHT')
  return {3}
end
call('HSET', key, 'state', 'active', 'o:run', ARGV[7])
call('HDEL', key, 'pending_since')
call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' c' .. id)
local live = tonumber(ARGV[3])
if live > 0 or not kept then call('EXPIRE', KEYS[1], math.abs(live)) end
return {0, -1, 'c', id, found[1], found[2], found[3], found[4]}
