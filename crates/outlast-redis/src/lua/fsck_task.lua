-- Decides about suspects one by one, and repairs what is wrong with them. KEYS[1] pending, [2] active, [3] lease, [4] scheduled,
-- [5] retry, [6] archived, [7] completed, [8] groups, [9] aggregation_sets, [10] groups that have been seen. ARGV[1] the prefix
-- of the queue's keys, [2] now in seconds, [3] now in nanoseconds, [4] '1' to repair, [5] ids of lists passed over after which
-- no further suspect is looked at, [6] the longest list that is searched, [7] the losses that are too many, [8] the error of
-- a lost lease as bytes of a message, [9] what was the newest in pending when the walk began that has met all of it, or '', [10]
-- the same of active, then per suspect: id, the place where it was met or '', the message that cannot be read or '', why,
-- 'p' and 'a' for the walks that have met it. Answers per suspect that was looked at, at least one, a list of {defect, place}; '' is nothing, '?' is undecided.
local repairs, allowed = ARGV[4] == '1', tonumber(ARGV[5])
local SEARCHED = {'pending', 'retry', 'scheduled', 'archived', 'completed'}

-- The place where a task of this state is, if it is there.
local function home_of(id, state, group)
  -- On its way to another broker.
  if state == 'outgoing' then return call('HEXISTS', P .. 'outlast:outgoing', id) == 1 and state end
  if state == 'active' then return is_in('lease', id) and is_in('active', id) and 'active' end
  if state == 'aggregating' then return member_of(id, group) end
  if state == 'pending' or (sorted[state] and state ~= 'lease') then return is_in(state, id) and state end
  return nil
end
-- All places in which a task is that is not at home, the one that counts first. A task is not done because it is among the
-- completed: its message must say so.
local function places_of(id, state, group, message)
  local found, others = {}, {}
  for _, place in ipairs(SEARCHED) do
    if is_in(place, id) then
      local counts = place ~= 'completed' or (message[13] or 0) > 0
      table.insert(counts and found or others, place)
    end
  end
  local member = member_of(id, group)
  if member then table.insert(found, member) end
  local is_held, is_active = is_in('lease', id), is_in('active', id)
  if is_held and is_active and state ~= 'active' and not found[1] then
    found[1] = 'active'
  else
    if is_held then others[#others + 1] = 'lease' end
    if is_active then others[#others + 1] = 'active' end
  end
  return found, others
end

local function check(id, met, bad, why)
  local key = P .. 't:' .. id
  local found = {}
  local function report(defect, place, fix)
    if too_long then
      found = {{'?', place}}
      return
    end
    if repairs then fix() end
    found[#found + 1] = {defect, place}
  end
  local kind = call('TYPE', key).ok
  if kind ~= 'none' and kind ~= 'hash' then return {{'foreign_key', kind}} end
  local record = call('HMGET', key, 'msg', 'state', 'group', 'o:why')
  local text, state = record[1], record[2] or ''
  -- On its way to another broker, it is in no place until it comes back.
  local is_away = state == 'outgoing' and call('HEXISTS', P .. 'outlast:outgoing', id) == 1
  if not text and not is_away then
    -- A record without its message is no task: what is left of one goes, and its id with it.
    if met ~= '' and is_in(met, id) then report('ghost', met, function() take_out(met, id) end) end
    if met == '' and kind == 'hash' then report('result_only', '', function() call('DEL', key) end) end
    return found
  end
  if not text or (bad ~= '' and text == bad) then
    if is_away then return {} end
    if state == 'active' and is_in('lease', id) then return {} end
    if state == 'archived' and is_in('archived', id) and record[4] then return {} end
    local member = member_of(id, record[3] or '')
    report('unreadable', why, function()
      for place in pairs(lists) do take_out(place, id) end
      for place in pairs(sorted) do take_out(place, id) end
      if member then take_out(member, id) end
      if met ~= '' then take_out(met, id) end
      archive(id, key, why)
    end)
    return found
  end

  local message = read_message(text) or {}
  local group = record[3]
  if not group or group == '' then group = message[14] or '' end
  if group == '' then group = string.match(met, '^g:(.*)$') or '' end
  local home = home_of(id, state, group)
  if home then
    if lists[met] and met == home then
      -- Nobody counts in a list that is too long: then it has been met again, or not.
      if call('LLEN', lists[met]) > longest then return {{'?', met}} end
      local times = times_in(met, id)
      if times > 1 then report('twice', met, function() call('LREM', lists[met], times - 1, id) end) end
    elseif met ~= '' and met ~= home and not (met == 'lease' and home == 'active') and is_in(met, id) then
      report('twice', met, function() take_out(met, id) end)
    end
    return found
  end
  if state == 'active' and is_in('lease', id) then
    report('not_active', 'lease', function() call('LPUSH', KEYS[2], id) end)
    return found
  end
  local places, others = places_of(id, state, group, message)
  local function clear(from)
    for at = from, #places do take_out(places[at], id) end
    for _, place in ipairs(others) do take_out(place, id) end
  end
  if places[1] then
    report('misplaced', places[1], function()
      clear(2)
      local is_member = string.sub(places[1], 1, 2) == 'g:'
      call('HSET', key, 'state', is_member and 'aggregating' or places[1])
      if is_member then call('HSET', key, 'group', group) end
    end)
    return found
  end
  local defect = (state == 'active' and is_in('active', id)) and 'no_lease' or 'orphan'
  report(defect, state, function()
    clear(1)
    put(id, key, state, text, message, group)
  end)
  return found
end

local answers = {}
for at = 11, #ARGV, 5 do
  if answers[1] and passed > allowed then break end
  too_long, known, met_in = false, {}, ARGV[at + 1]
  for place, letter in pairs({pending = 'p', active = 'a'}) do
    walked[place] = string.find(ARGV[at + 4], letter, 1, true) ~= nil
  end
  local found = check(ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  if too_long and not found[1] then found = {{'?', ARGV[at + 1]}} end
  answers[#answers + 1] = found
end
return answers
