-- Decides about groups, sets, sessions and the queue's own entry, and repairs them. KEYS[1] groups, [2] aggregation_sets,
-- [3] groups that have been seen, [4] the set of queues, [5] pending, [6] active, [7] scheduled, [8] retry, [9] archived,
-- [10] completed. ARGV[1] the prefix of the queue's keys, [2] the queue, [3] '1' to repair, [4] the seconds a session lives,
-- [5] members of a set moved at most, then per item its kind and its name: group listed, member key of a group or a set,
-- set listed, session, queue (the name is a task's key, or ''). Answers a defect or '' for each.
local call = redis.call
local P, repairs = ARGV[1], ARGV[3] == '1'
local function repair(defect, fix)
  if repairs then fix() end
  return defect
end
local check = {}
function check.group(name)
  if call('SISMEMBER', KEYS[1], name) == 0 or call('EXISTS', P .. 'g:' .. name) == 1 then return '' end
  return repair('empty_group', function()
    call('SREM', KEYS[1], name)
    call('SREM', KEYS[3], name)
  end)
end
local function stray(set, group)
  return repair('stray_set', function()
    local members = call('ZRANGE', set, 0, tonumber(ARGV[5]) - 1, 'WITHSCORES')
    for at = 1, #members, 2 do call('ZADD', P .. 'g:' .. group, 'NX', members[at + 1], members[at]) end
    call('ZREMRANGEBYRANK', set, 0, #members / 2 - 1)
    call('SADD', KEYS[1], group)
    call('SADD', KEYS[3], group)
  end)
end
function check.member(name)
  local key = P .. 'g:' .. name
  local kind = call('TYPE', key).ok
  if kind == 'none' then return '' end
  if kind ~= 'zset' then return 'foreign_key' end
  if call('SISMEMBER', KEYS[1], name) == 1 or call('ZSCORE', KEYS[2], key) then return '' end
  -- asynq names a set by its group and a UUID.
  local group = string.match(name, '^(.+):%x%x%x%x%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$')
  local first = group and call('ZRANGE', key, 0, 0)[1]
  if group and read_record('HGET', P .. 't:' .. first, 'group') ~= name then
    -- Its members cannot go back to what is no group.
    if read_record('ZCARD', P .. 'g:' .. group) == nil then return 'foreign_key' end
    return stray(key, group)
  end
  return repair('unlisted_group', function()
    call('SADD', KEYS[1], name)
    call('SADD', KEYS[3], name)
  end)
end
function check.set(key)
  if not call('ZSCORE', KEYS[2], key) or call('EXISTS', key) == 1 then return '' end
  return repair('empty_set', function() call('ZREM', KEYS[2], key) end)
end
function check.session(key)
  if call('TTL', key) ~= -1 then return '' end
  return repair('no_expiry', function() call('EXPIRE', key, ARGV[4]) end)
end
function check.queue(key)
  if call('SISMEMBER', KEYS[4], ARGV[2]) == 1 then return '' end
  local has_tasks = key ~= '' and call('EXISTS', key) == 1
  for nth = 5, 10 do has_tasks = has_tasks or call('EXISTS', KEYS[nth]) == 1 end
  if not has_tasks then return '' end
  return repair('unlisted_queue', function() call('SADD', KEYS[4], ARGV[2]) end)
end
local answers = {}
for at = 6, #ARGV, 2 do answers[#answers + 1] = check[ARGV[at]](ARGV[at + 1]) end
return answers
