-- Records ticks, each once whoever reports it. KEYS[1] states of schedules. ARGV[1] what the names of our histories begin
-- with, [2] those of asynq's, [3] how many are kept, [4] seconds our histories live, [5] asynq's, then per tick: schedule,
-- moment in ms, record, SchedulerEnqueueEvent ('' if it was skipped), when it was enqueued in seconds.
-- In a Cluster each history has a slot of its own: one call per schedule.
local oldest = -1 - tonumber(ARGV[3])
for at = 6, #ARGV, 5 do
  local name, moment, event = ARGV[at], ARGV[at + 1], ARGV[at + 3]
  local ours, theirs = ARGV[1] .. name, ARGV[2] .. name
  if call('ZCOUNT', ours, moment, moment) == 0 then
    call('ZADD', ours, moment, ARGV[at + 2])
    call('ZREMRANGEBYRANK', ours, 0, oldest)
    call('EXPIRE', ours, ARGV[4])
    if event ~= '' then
      call('ZADD', theirs, ARGV[at + 4], event)
      call('ZREMRANGEBYRANK', theirs, 0, oldest)
      call('EXPIRE', theirs, ARGV[5])
    end
  end
  local until_ms, paused, last = state(KEYS[1], name)
  keep(KEYS[1], name, until_ms, paused, later(last, moment))
end
