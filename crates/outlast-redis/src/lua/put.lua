-- Stores one task of any kind. `place` names the keys: pending, scheduled, groups, prefix.
-- The order of the questions is part of the semantics: once, lock, id. Who is refused leaves nothing behind.
-- The task: id, message, accepted, kind (p pending, f front, s scheduled, g grouped), score, lock, its seconds,
-- once key, its seconds, group. Answers nil, or the verdict and the id that is in the way.
local PUT_ARGS = 10
local function put(place, now_ns, at)
  local id, kind, lock, once = ARGV[at], ARGV[at + 3], ARGV[at + 5], ARGV[at + 7]
  if kind == 'x' then return 'X', ARGV[at + 1] end
  local key = place.prefix .. 't:' .. id
  local user = once ~= '' and redis.call('GET', once)
  if user then return 'D', user end
  local holder = lock ~= '' and redis.call('GET', lock)
  if holder then return 'D', holder end
  if redis.call('EXISTS', key) == 1 then return 'I', id end
  if once ~= '' then redis.call('SET', once, id, 'EX', ARGV[at + 8]) end
  local fields = {'msg', ARGV[at + 1]}
  local function field(name, value)
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  if ARGV[at + 2] ~= '' then field('o:at', ARGV[at + 2]) end
  if lock ~= '' then
    redis.call('SET', lock, id, 'EX', ARGV[at + 6])
    field('unique_key', lock)
  end
  if kind == 's' then
    redis.call('ZADD', place.scheduled, ARGV[at + 4], id)
    field('state', 'scheduled')
    -- Not as `group`: Go's forwarder puts a task that has it into its group without listing the group, and nobody finds it.
    if ARGV[at + 9] ~= '' then field('o:group', ARGV[at + 9]) end
  elseif kind == 'g' then
    local group = ARGV[at + 9]
    redis.call('ZADD', place.prefix .. 'g:' .. group, ARGV[at + 4], id)
    redis.call('SADD', place.groups, group)
    redis.call('SADD', place.prefix .. 'outlast:groups', group)
    field('state', 'aggregating')
    field('group', group)
  else
    redis.call(kind == 'f' and 'RPUSH' or 'LPUSH', place.pending, id)
    field('state', 'pending')
    field('pending_since', now_ns)
  end
  redis.call('HSET', key, unpack(fields))
  return nil
end
-- Fails before anything is written if a collection is not what it should be.
local function check_places(place)
  redis.call('LLEN', place.pending)
  redis.call('ZCARD', place.scheduled)
  redis.call('SCARD', place.groups)
end
-- The same for what one task needs.
local function check_put(place, at)
  local kind, lock, once, group = ARGV[at + 3], ARGV[at + 5], ARGV[at + 7], ARGV[at + 9]
  if once ~= '' then redis.call('STRLEN', once) end
  if lock ~= '' then redis.call('STRLEN', lock) end
  if kind == 'g' then
    redis.call('ZCARD', place.prefix .. 'g:' .. group)
    redis.call('SCARD', place.prefix .. 'outlast:groups')
  end
end
