-- How a server is, in one command: whether it takes writes, its role, its memory, and whose data it has. KEYS[1] the epoch, ARGV[1]
-- the name of data that has none yet. Answers {INFO server, INFO replication, epoch, INFO memory, 1 if there is no memory for a write},
-- each empty where our user may not ask (hence the small letters: for these the script is not kept back), or on a primary the error
-- of the write, if it is another one. Needs a server that lets a script without flags begin when there is no memory: all do.
local function asked(...)
  local answer = redis.pcall(...)
  return (type(answer) ~= 'table' or not answer.err) and answer
end
local replication = asked('info', 'replication') or ''
local is_full = 0
if not string.find(replication, 'role:slave', 1, true) then
  local set = redis.pcall('SET', KEYS[1], ARGV[1], 'NX')
  if type(set) == 'table' and set.err then
    if not string.find(set.err, 'OOM ', 1, true) then return set end
    is_full = 1
  end
end
local epoch = redis.call('GET', KEYS[1]) or ''
return {asked('info', 'server') or '', replication, epoch, asked('info', 'memory') or '', is_full}
