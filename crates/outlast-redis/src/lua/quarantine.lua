-- Puts records that cannot be read among the archived; where there is data of another program, only the
-- id goes: among the archived it would make their listing fail, for asynq too. A record without its message goes as a whole. KEYS[1] active, [2] lease, [3] archived. ARGV[1] the prefix of the
-- queue's keys, [2] now in seconds, then per record: id, the set it is in or '', why.
for at = 3, #ARGV, 3 do
  local id, set = ARGV[at], ARGV[at + 1]
  local key = ARGV[1] .. 't:' .. id
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'none' then
    if set == '' then
      drop_active(KEYS[1], {id})
      redis.call('ZREM', KEYS[2], id)
    else
      redis.call('ZREM', ARGV[1] .. 'g:' .. set, id)
    end
    if kind == 'hash' and redis.call('HEXISTS', key, 'msg') == 1 then
      redis.call('ZADD', KEYS[3], ARGV[2], id)
      redis.call('HSET', key, 'state', 'archived', 'o:why', ARGV[at + 2])
    else
      drop_ghost(key)
    end
  end
end
return 0
