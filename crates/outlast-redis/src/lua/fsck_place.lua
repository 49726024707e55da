-- Where a task is: looking into the collections of a queue, and taking it out of them. A place is the last part of a
-- collection's name. Only lists are searched from end to end; how many ids that passes over is counted. Of a list that is too
-- long for it the two ends are searched, and what is between is known from the walk that has met all of it, if what was the
-- newest then is still near the end where the newest come in: then nothing lies there that came in since.
local call = redis.call
local P = ARGV[1]
local lists = {pending = KEYS[1], active = KEYS[2]}
local sorted = {lease = KEYS[3], scheduled = KEYS[4], retry = KEYS[5], archived = KEYS[6], completed = KEYS[7]}
local passed, longest, too_long, known = 0, tonumber(ARGV[6]), false, {}
local newest, searched = {pending = ARGV[9], active = ARGV[10]}, {}
-- Of the suspect: where it was met a moment ago, and by which of the walks.
local met_in, walked = '', {}

local function key_of(place) return lists[place] or sorted[place] or P .. place end
local function is_near(place, id, rank)
  passed = passed + longest
  return call('LPOS', lists[place], id, 'RANK', rank, 'MAXLEN', longest)
end
local function times_in_long(place, id)
  if place == met_in or is_near(place, id, 1) or is_near(place, id, -1) then return 1 end
  if searched[place] == nil then searched[place] = newest[place] ~= '' and is_near(place, newest[place], 1) ~= false end
  -- What was met and is near no end may be there still, or not.
  too_long = too_long or not searched[place] or walked[place]
  return 0
end
-- How often it is there; once, in a list that is too long to count. Where nobody knows, too_long is set.
local function times_in(place, id)
  if not lists[place] then return read_record('ZSCORE', key_of(place), id) and 1 or 0 end
  local length = call('LLEN', lists[place])
  -- Searched once for each suspect.
  if not known[place] and length > longest then known[place] = times_in_long(place, id) end
  if not known[place] then
    passed = passed + length
    known[place] = #call('LPOS', lists[place], id, 'COUNT', 0)
  end
  return known[place]
end
local function is_in(place, id) return times_in(place, id) > 0 end
local function take_out(place, id)
  if lists[place] then
    passed = passed + call('LLEN', lists[place])
    call('LREM', lists[place], 0, id)
    return
  end
  call('ZREM', key_of(place), id)
  local group = string.match(place, '^g:(.*)$')
  if group and call('EXISTS', P .. place) == 0 then
    call('SREM', KEYS[8], group)
    call('ZREM', KEYS[9], P .. place)
  end
end
-- The group or the set in which a member waits.
local function member_of(id, group)
  if group == '' then return nil end
  if read_record('ZSCORE', P .. 'g:' .. group, id) then return 'g:' .. group end
  local start = P .. 'g:' .. group .. ':'
  for _, set in ipairs(call('ZRANGE', KEYS[9], 0, 9999)) do
    if string.sub(set, 1, #start) == start and read_record('ZSCORE', set, id) then return string.sub(set, #P + 1) end
  end
  return nil
end
