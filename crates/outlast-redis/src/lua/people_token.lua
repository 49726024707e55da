-- The token of a worker that has none: the one it had, or a new one that no live worker holds; 0 if none was found.
-- KEYS[1] the worker's own record, [2] the counter, [3] servers, [4] workers. ARGV[1] what the members of servers begin with,
-- [2] what the records of workers begin with, [3] what lists of commands begin with, [4] the greatest token, [5] a random
-- number to begin with, [6] how many to try, [7] the score below which members are forgotten, [8] seconds to live,
-- [9] the worker's view. In a Cluster the record, the counter and the indexes lie apart: take, then look, then write.
local call = redis.call
local function token_of(key) return string.match(call('GETRANGE', key, 0, 7), '^%d+') end
local kept = token_of(KEYS[1])
if kept then return tonumber(kept) end
for index = 3, 4 do call('ZREMRANGEBYSCORE', KEYS[index], '-inf', ARGV[7]) end
local held = {}
for _, member in ipairs(call('ZRANGE', KEYS[3], 0, -1)) do
  held[token_of(ARGV[2] .. string.sub(member, #ARGV[1] + 1)) or ''] = true
end
-- A server that has lost its data must not begin with the tokens that its workers still hold.
call('SET', KEYS[2], ARGV[5], 'NX')
for _ = 1, tonumber(ARGV[6]) do
  local token = string.format('%d', call('INCR', KEYS[2]) % tonumber(ARGV[4]) + 1)
  if not held[token] then
    call('DEL', ARGV[3] .. token)
    call('SETEX', KEYS[1], ARGV[8], token .. ' ' .. ARGV[9])
    return tonumber(token)
  end
end
return 0
