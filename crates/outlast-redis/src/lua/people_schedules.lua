-- A scheduler's sign of life. KEYS[1] states of schedules, [2] schedulers, [3] this scheduler's entries.
-- ARGV[1] what the keys of views begin with, [2] until when in seconds, [3] in milliseconds, [4] seconds to live, [5] '1' if
-- these are the first of several calls, [6] the score below which schedulers are forgotten, then per schedule: name, view,
-- SchedulerEntry. Answers when each was paused, and its last tick. In a Cluster: 1, 2, 3 and every view apart.
if ARGV[5] == '1' then
  call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[6])
  call('ZADD', KEYS[2], ARGV[2], KEYS[3])
  call('DEL', KEYS[3])
end
local answer = {}
for at = 7, #ARGV, 3 do
  local name = ARGV[at]
  local _, paused, last = state(KEYS[1], name)
  keep(KEYS[1], name, ARGV[3], paused, last)
  if paused == '-' then
    call('SETEX', ARGV[1] .. name, ARGV[4], ARGV[at + 1])
  else
    -- Whoever wants to resume it must find it, also when its scheduler is gone.
    call('SET', ARGV[1] .. name, ARGV[at + 1])
  end
  call('RPUSH', KEYS[3], ARGV[at + 2])
  answer[#answer + 1], answer[#answer + 2] = paused, last
end
call('EXPIRE', KEYS[3], ARGV[4])
return answer
