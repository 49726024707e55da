-- asynq's counters (contract §3.0): the lifetime ones begin again at the end of what a number can hold, the daily ones expire.
local COUNTER_MAX = 9223372036854775807
-- Fails before anything is written if a counter is none.
local function check_counters(keys)
  for _, key in pairs(keys) do
    local kept = redis.call('GET', key)
    if kept and not tonumber(kept) then error('WRONGTYPE ' .. key .. ' is no counter') end
  end
end
local function count_day(key, by, until_s)
  if redis.call('INCRBY', key, by) == by then redis.call('EXPIREAT', key, until_s) end
end
local function count_runs(keys, processed, failed, until_s)
  if processed == 0 then return end
  count_day(keys.processed_day, processed, until_s)
  if failed > 0 then count_day(keys.failed_day, failed, until_s) end
  local total = tonumber(redis.call('GET', keys.processed) or '0')
  -- As doubles, so that the last 512 numbers are the end as well, as in asynq.
  if total >= COUNTER_MAX then
    redis.call('SET', keys.processed, processed)
    if failed > 0 then redis.call('SET', keys.failed, failed) end
  else
    redis.call('INCRBY', keys.processed, processed)
    if failed > 0 then redis.call('INCRBY', keys.failed, failed) end
  end
end
