-- Stores tasks of any kind. KEYS[2] pending, KEYS[3] scheduled, KEYS[4] groups, KEYS[5...] one per task.
-- ARGV[4] the set of queues ('' if it is elsewhere), ARGV[5] the queue, ARGV[6] now in nanoseconds,
-- ARGV[7] the prefix of the queue's keys, then per task as in put.lua. Answers as enqueue_plain.lua.
local lost, earlier = arrive()
if not lost then return earlier end
local place = {pending = KEYS[2], scheduled = KEYS[3], groups = KEYS[4], prefix = ARGV[7]}
local queues = ARGV[4]
local known = queues == '' or call('SISMEMBER', queues, ARGV[5]) == 1
check_places(place)
for at = 8, #ARGV, PUT_ARGS do check_put(place, at) end
local verdicts, accepted = {}, 0
for nth = 1, (#ARGV - 7) / PUT_ARGS do
  local verdict, of = put(place, ARGV[6], 8 + (nth - 1) * PUT_ARGS)
  if verdict then
    verdicts[#verdicts + 1] = {nth, verdict, of}
  else
    accepted = accepted + 1
  end
end
if accepted > 0 and not known then call('SADD', queues, ARGV[5]) end
remember(lost, 'e', verdicts[1] and verdicts)
return {APPLIED, lost, 'e', verdicts}
