-- asynq's counters (contract §3.0): the lifetime ones begin again at the end of what a number can hold, the daily ones expire.
local COUNTER_MAX = 9223372036854775807
-- Fails before anything is written if a counter is none that INCRBY takes. Answers what they hold. Only those of the lifetime
-- (from `lifetime` on) may be at the end of their numbers.
local function check_counters(keys, lifetime)
  local kept = redis.call('MGET', unpack(keys))
  for nth, key in ipairs(keys) do
    -- Of another type, which this tells, or not there.
    local value = kept[nth] or redis.call('GET', key)
    if value and (not string.find(value, '^%-?%d+$') or nth < lifetime and tonumber(value) >= COUNTER_MAX) then
      error('WRONGTYPE ' .. key .. ' is no counter')
    end
  end
  return kept
end
local function count_day(key, by, until_s)
  if redis.call('INCRBY', key, tostring(by)) == by then redis.call('EXPIREAT', key, until_s) end
end
-- `total` is what the lifetime's counter of runs held. As doubles, so that the last 512 numbers are the end as well, as in asynq.
local function count_total(key, total, by)
  local is_full = tonumber(total or '0') >= COUNTER_MAX
  redis.call(is_full and 'SET' or 'INCRBY', key, tostring(by))
end
