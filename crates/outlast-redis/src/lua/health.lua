-- How a server is, in one command: whether it takes writes, its role, and whose data it has. KEYS[1] the epoch, ARGV[1] the
-- name of data that has none yet. Answers {INFO server, INFO replication, epoch}, each empty where our user may not ask (hence the small
-- letters: for these the script is not kept back), or on a primary the error of the write.
local function asked(...)
  local answer = redis.pcall(...)
  return (type(answer) ~= 'table' or not answer.err) and answer
end
local replication = asked('info', 'replication') or ''
if not string.find(replication, 'role:slave', 1, true) then
  local set = redis.pcall('SET', KEYS[1], ARGV[1], 'NX')
  if type(set) == 'table' and set.err then return set end
end
return {asked('info', 'server') or '', replication, redis.call('GET', KEYS[1]) or ''}
