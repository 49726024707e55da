-- Stores tasks that are pending at once and have neither lock nor key nor group: nearly all there are.
-- KEYS[2] pending, KEYS[3...] one per task. ARGV[4] the set of queues ('' if it is elsewhere), ARGV[5] the queue,
-- ARGV[6] now in nanoseconds, then per task: id, message, moment of acceptance or ''.
-- Answers {status, lost, verdicts}; no verdicts: all were accepted.
local lost, earlier = arrive()
if not lost then return earlier end
local queues = ARGV[4]
local known = queues == '' or call('SISMEMBER', queues, ARGV[5]) == 1
call('LLEN', KEYS[2])
local ids, verdicts, at = {}, nil, 7
for nth = 3, #KEYS do
  local key = KEYS[nth]
  if call('EXISTS', key) == 1 then
    verdicts = verdicts or {}
    verdicts[#verdicts + 1] = {nth - 2, 'I', ''}
  elseif ARGV[at + 2] == '' then
    call('HSET', key, 'msg', ARGV[at + 1], 'state', 'pending', 'pending_since', ARGV[6])
    ids[#ids + 1] = ARGV[at]
  else
    call('HSET', key, 'msg', ARGV[at + 1], 'state', 'pending', 'pending_since', ARGV[6], 'o:at', ARGV[at + 2])
    ids[#ids + 1] = ARGV[at]
  end
  at = at + 3
end
if #ids > 0 then
  call('LPUSH', KEYS[2], unpack(ids))
  if not known then call('SADD', queues, ARGV[5]) end
end
remember(lost, 'e', verdicts)
return {APPLIED, lost, 'e', verdicts or {}}
