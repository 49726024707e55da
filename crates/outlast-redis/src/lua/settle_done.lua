-- Ends tasks that succeeded and leave nothing behind: no retention, no lock, no result. The path of nearly all.
-- KEYS[2] active, [3] lease, [4] processed today, [5] processed; KEYS[6...] one per task.
-- ARGV[4] the fraction of the leases, [5] when today's counter expires, [6...] the ids.
-- Answers as settle.lua, or DECLINED, with nothing written, if a lease is not there or is named twice: then settle.lua
-- decides.
local lost, earlier = arrive()
if not lost then return earlier end
local counters = {processed_day = KEYS[4], processed = KEYS[5]}
check_counters(counters)
local ids, fraction = {unpack(ARGV, 6)}, tonumber(ARGV[4])
for _, score in ipairs(call('ZMSCORE', KEYS[3], unpack(ids))) do
  if not score or tonumber(score) % 1 ~= fraction then return {DECLINED} end
end
local named = {}
for _, id in ipairs(ids) do
  if named[id] then return {DECLINED} end
  named[id] = true
end
drop_active(KEYS[2], ids)
call('ZREM', KEYS[3], unpack(ids))
local gone = call('DEL', unpack(KEYS, 6))
count_runs(counters, gone, 0, ARGV[5])
remember(lost, 's', nil)
return {APPLIED, lost, 's', {}}
