-- What is known of a schedule: a field `<until> <paused since> <last tick>`, in Unix milliseconds, '-' where there is none.
local call = redis.call
local function state(key, name)
  local kept = call('HGET', key, name)
  if not kept then return '-', '-', '-' end
  local until_ms, paused, last = string.match(kept, '^(%S+) (%S+) (%S+)$')
  return until_ms or '-', paused or '-', last or '-'
end
local function keep(key, name, until_ms, paused, last)
  call('HSET', key, name, until_ms .. ' ' .. paused .. ' ' .. last)
end
local function later(one, two)
  if one == '-' then return two end
  return tonumber(one) < tonumber(two) and two or one
end
