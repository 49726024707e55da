-- Stores tasks that are pending at once and have neither lock nor key nor group: nearly all there are.
-- KEYS[2] pending, KEYS[3...] one per task. ARGV[4] the set of queues ('' if it is elsewhere), ARGV[5] the queue,
-- ARGV[6] now in nanoseconds, then per task: id, message, moment of acceptance or ''.
-- Answers {status, lost, verdicts}; no verdicts: all were accepted.
local lost, earlier = arrive()
if not lost then return earlier end
local queues, verdicts = ARGV[4], nil
local function store(key, at)
  if ARGV[at + 2] == '' then
    call('HSET', key, 'msg', ARGV[at + 1], 'state', 'pending', 'pending_since', ARGV[6])
  else
    call('HSET', key, 'msg', ARGV[at + 1], 'state', 'pending', 'pending_since', ARGV[6], 'o:at', ARGV[at + 2])
  end
end
if #KEYS ~= 3 then
  local known = queues == '' or call('SISMEMBER', queues, ARGV[5]) == 1
  call('LLEN', KEYS[2])
  local ids, at = {}, 7
  for nth = 3, #KEYS do
    if call('EXISTS', KEYS[nth]) == 1 then
      verdicts = verdicts or {}
      verdicts[#verdicts + 1] = {nth - 2, 'I', ''}
    else
      store(KEYS[nth], at)
      ids[#ids + 1] = ARGV[at]
    end
    at = at + 3
  end
  if ids[1] then
    call('LPUSH', KEYS[2], unpack(ids))
    if not known then call('SADD', queues, ARGV[5]) end
  end
elseif call('EXISTS', KEYS[3]) == 1 then
  verdicts = {{1, 'I', ''}}
else
  -- One task in the shortest way. A line that is not empty is listed; where another program has just taken it off the list,
  -- the sweep heals that.
  if call('LPUSH', KEYS[2], ARGV[7]) == 1 and queues ~= '' then
    local listed = redis.pcall('SADD', queues, ARGV[5])
    if type(listed) == 'table' then
      call('LPOP', KEYS[2])
      return listed
    end
  end
  store(KEYS[3], 7)
end
remember(lost, 'e', verdicts)
return {APPLIED, lost, 'e', verdicts or {}}
