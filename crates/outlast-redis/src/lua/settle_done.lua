-- Ends tasks that succeeded and leave nothing behind: no retention, no lock, no result. The path of nearly all.
-- KEYS[2] active, [3] lease, [4] processed today, [5] processed; KEYS[6...] one per task.
-- ARGV[4] the fraction of the leases, [5] when today's counter expires, [6...] the ids.
-- Answers as settle.lua, or DECLINED, with nothing written, if a lease is not there or is named twice: then settle.lua
-- decides.
local lost, earlier = arrive()
if not lost then return earlier end
local fraction = tonumber(ARGV[4])
local counted, gone
if #ARGV == 6 then
  -- One task in the shortest way.
  local score = call('ZSCORE', KEYS[3], ARGV[6])
  if not score or tonumber(score) % 1 ~= fraction then return {DECLINED} end
  counted = check_counters({KEYS[4], KEYS[5]})
  if call('LLEN', KEYS[2]) <= 200 then
    call('LREM', KEYS[2], '1', ARGV[6])
  else
    drop_active(KEYS[2], {ARGV[6]})
  end
  call('ZREM', KEYS[3], ARGV[6])
  gone = call('DEL', KEYS[6])
else
  local ids, named = {unpack(ARGV, 6)}, {}
  for nth, score in ipairs(call('ZMSCORE', KEYS[3], unpack(ids))) do
    if not score or tonumber(score) % 1 ~= fraction or named[ids[nth]] then return {DECLINED} end
    named[ids[nth]] = true
  end
  counted = check_counters({KEYS[4], KEYS[5]})
  drop_active(KEYS[2], ids)
  call('ZREM', KEYS[3], unpack(ids))
  gone = call('DEL', unpack(KEYS, 6))
end
if gone > 0 then
  count_day(KEYS[4], gone, ARGV[5])
  count_total(KEYS[5], counted[2], gone)
end
remember(lost, 's', nil)
return {APPLIED, lost, 's', {}}
