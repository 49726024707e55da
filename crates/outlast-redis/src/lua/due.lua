-- Makes due tasks pending, or members of their group, in the order in which they were due: behind what waits already.
-- At most `most` of each kind; answers how many left their set, and how many of those had no task any more. Where another program
-- has put something in the place of a group, its tasks stay where they are and are looked at again a minute later.
local LATER_S = 60
local function promote(place, now_s, now_ns, most)
  local function due_of(key, now_s, most, into)
    local found = redis.call('ZRANGE', key, '-inf', now_s, 'BYSCORE', 'LIMIT', '0', most, 'WITHSCORES')
    for at = 1, #found, 2 do into[#into + 1] = {found[at], tonumber(found[at + 1]), key} end
    return #found / 2
  end
  local function group_of(found) return found[1] or found[3] or '' end
  local due = {}
  local scheduled = due_of(place.scheduled, now_s, most, due)
  local retry = due_of(place.retry, now_s, most, due)
  if #due == 0 then return 0, 0 end
  redis.call('LLEN', place.pending)
  redis.call('SCARD', place.groups)
  if scheduled > 0 and retry > 0 then
    table.sort(due, function(one, two)
      if one[2] ~= two[2] then return one[2] < two[2] end
      return one[1] < two[1]
    end)
  end
  -- Read first, written after.
  local records, gone = {}, 0
  for nth, task in ipairs(due) do
    local found = read_record('HMGET', place.prefix .. 't:' .. task[1], 'group', 'state', 'o:group') or {}
    found.waits = group_of(found) ~= '' and read_record('ZCARD', place.prefix .. 'g:' .. group_of(found)) == nil
    records[nth] = found
  end
  local line, waiting, moved = {}, 0, {[place.scheduled] = {}, [place.retry] = {}}
  for nth, task in ipairs(due) do
    local id, found = task[1], records[nth]
    local key = place.prefix .. 't:' .. id
    local group = group_of(found)
    if not found.waits then table.insert(moved[task[3]], id) end
    if found.waits then
      waiting = waiting + 1
      redis.call('ZADD', task[3], math.floor(now_s) + LATER_S, id)
    elseif not found[2] then
      -- A ghost: its record is gone, or something else was put in its place, so there is nothing to run.
      gone = gone + 1
      drop_ghost(key)
    elseif group ~= '' then
      redis.call('ZADD', place.prefix .. 'g:' .. group, math.floor(now_s), id)
      redis.call('SADD', place.groups, group)
      redis.call('HSET', key, 'state', 'aggregating', 'group', group)
    else
      line[#line + 1] = id
      redis.call('HSET', key, 'state', 'pending', 'pending_since', now_ns)
    end
  end
  for key, ids in pairs(moved) do
    for from = 1, #ids, 1000 do redis.call('ZREM', key, unpack(ids, from, math.min(from + 999, #ids))) end
  end
  for from = 1, #line, 1000 do redis.call('LPUSH', place.pending, unpack(line, from, math.min(from + 999, #line))) end
  return #due - waiting, gone
end
