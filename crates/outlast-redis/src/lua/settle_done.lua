-- Ends tasks that succeeded and leave nothing behind: no retention, no lock, no result. The path of nearly all.
-- KEYS[2] active, [3] lease, [4] processed today, [5] processed; KEYS[6...] one per task.
-- ARGV[4] the fraction of the leases, [5] when today's counter expires, [6...] the ids.
-- Answers as settle.lua, or DECLINED, with nothing written, if a lease or a task is not there or is named twice: then settle.lua
-- decides.
local lost, earlier = arrive()
if not lost then return earlier end
local fraction = tonumber(ARGV[4])
local ids, named = {unpack(ARGV, 6)}, {}
for nth, score in ipairs(call('ZMSCORE', KEYS[3], unpack(ids))) do
  if not score or tonumber(score) % 1 ~= fraction or named[ids[nth]] then return {DECLINED} end
  named[ids[nth]] = true
end
if call('EXISTS', unpack(KEYS, 6)) < #ids then return {DECLINED} end
local counted = check_counters({KEYS[4], KEYS[5]}, 2)
drop_active(KEYS[2], ids)
call('ZREM', KEYS[3], unpack(ids))
call('DEL', unpack(KEYS, 6))
count_day(KEYS[4], #ids, ARGV[5])
count_total(KEYS[5], counted[2], #ids)
remember(lost, 's', nil)
return {APPLIED, lost, 's', {}}
