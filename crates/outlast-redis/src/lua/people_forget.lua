-- Forgets schedules that nobody has mentioned for long. KEYS[1] states of schedules. ARGV: names and the states they had.
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then redis.call('HDEL', KEYS[1], ARGV[at]) end
end
return 0
