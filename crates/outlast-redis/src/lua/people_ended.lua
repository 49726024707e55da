-- Schedules that their scheduler keeps no more. KEYS[1] schedulers, [2] this scheduler's entries. ARGV[1] what the keys of views
-- begin with, [2] seconds that they are listed at most, [3] '1' if this scheduler keeps none any more: then it leaves asynq's
-- list; else its entries were written anew. Then the names. A view that is paused stays, for whoever wants to resume it.
-- In a Cluster: 1, 2 and every view apart.
local call = redis.call
if ARGV[3] == '1' then
  call('ZREM', KEYS[1], KEYS[2])
  call('DEL', KEYS[2])
end
for at = 4, #ARGV do
  local view = ARGV[1] .. ARGV[at]
  if call('TTL', view) > tonumber(ARGV[2]) then call('EXPIRE', view, ARGV[2]) end
end
return 0
