-- Holds leases longer. KEYS[1] lease, [2] aggregation_sets. ARGV[1] the prefix of the queue's keys, [2] until when in
-- seconds, then per hold: id, token, '1' if there is progress, the progress. Answers a 1 or 0 for each.
local answer = {}
-- Of a task that is gone nothing is kept: a record of nothing but a result would keep its id taken for ever.
local function write_result(key, result)
  if read_record('HEXISTS', key, 'msg') == 1 then redis.call('HSET', key, 'result', result) end
end
redis.call('ZCARD', KEYS[2])
for at = 3, #ARGV, 4 do
  local id, fraction = ARGV[at], tonumber(ARGV[at + 1]) / 1048576
  local set = ARGV[1] .. 'g:' .. id
  local score = redis.call('ZSCORE', KEYS[1], id)
  local key, member = KEYS[1], id
  if not score then
    key, member = KEYS[2], set
    score = redis.call('ZSCORE', key, member)
  end
  local is_ours = score and tonumber(score) % 1 == fraction
  if is_ours then
    redis.call('ZADD', key, 'XX', string.format('%.17g', tonumber(ARGV[2]) + fraction), member)
    if member == id and ARGV[at + 2] == '1' then write_result(ARGV[1] .. 't:' .. id, ARGV[at + 3]) end
  end
  answer[#answer + 1] = is_ours and 1 or 0
end
return answer
