-- Asking something of a worker (docs/redis-keys.md). The list holds `<number> <json>`, numbers grow; a day after the last
-- command it is gone. A list that is full belongs to a worker that does not listen: false, and nothing is written.
local function tell(root, token, json)
  local key = root .. ':outlast:commands:' .. token
  if redis.call('LLEN', key) >= 10000 then return false end
  redis.call('RPUSH', key, redis.call('INCR', root .. ':outlast:command') .. ' ' .. json)
  redis.call('EXPIRE', key, 86400)
  return true
end
