-- Moves what time has moved, each kind of work up to the budget, and heals what other programs left behind (contract §5.4).
-- KEYS[1] pending, [2] active, [3] lease, [4] scheduled, [5] retry, [6] archived, [7] completed, [8] groups,
-- [9] aggregation_sets, [10] groups that have been seen. ARGV[1] the prefix of the queue's keys, [2] now in seconds with
-- fraction, [3] now in nanoseconds, [4] the budget, [5] '1' if expired leases may be taken back, [6] the losses that are too
-- many, [7] the error of a lost lease as bytes of a message, [8] seconds a foreign lease is left alone after its end,
-- [9] archived tasks kept at most, [10] seconds they are kept, [11] the set of queues or '', [12] the queue, [13] a random
-- number below 1, [14] the token, as a fraction, of a worker that is taken for dead or '', [15] the second up to which its leases are.
-- Answers {due, recovered, given up, reclaimed, deleted, healed, next due or '', 1 if a set was left unfinished, the scores of the
-- leases that end first, one of each token of ours}.
local call = redis.call
local P, now, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4])
local now_s = math.floor(now)
local place = {pending = KEYS[1], scheduled = KEYS[4], retry = KEYS[5], groups = KEYS[8], prefix = P}
local recovered, given_up, reclaimed, deleted, healed, unfinished = 0, 0, 0, 0, 0, 0
for nth = 1, 2 do call('LLEN', KEYS[nth]) end
for nth = 3, 7 do call('ZCARD', KEYS[nth]) end
call('SCARD', KEYS[8])
call('ZCARD', KEYS[9])
call('SCARD', KEYS[10])
if ARGV[11] ~= '' then call('SCARD', ARGV[11]) end

local due, ghosts = promote(place, now, ARGV[3], most)
healed = healed + ghosts

-- Leases that are over, the oldest first. A lease ends at its second, whatever the fraction, which is its token. A foreign
-- one gets asynq's allowance, and is passed over until then: so many pages are looked at, behind thousands of those.
local PAGE, PAGES = 1000, 10
local vanished = tonumber(ARGV[14])
local function leases_over()
  local last = math.max(now_s, vanished and tonumber(ARGV[15]) or 0)
  local ids, before, allowance = {}, '(' .. string.format('%.0f', last + 1), tonumber(ARGV[8])
  for page = 0, PAGES - 1 do
    local over = call('ZRANGE', KEYS[3], '-inf', before, 'BYSCORE', 'LIMIT', page * PAGE, PAGE, 'WITHSCORES')
    for at = 1, #over, 2 do
      local score = tonumber(over[at + 1])
      local is_over = score < now_s + 1 and (score % 1 ~= 0 or score + allowance <= now)
      if is_over or (vanished and score % 1 == vanished) then ids[#ids + 1] = over[at] end
      if #ids >= most then return ids end
    end
    if #over < 2 * PAGE then break end
  end
  return ids
end

-- A task whose worker vanished: no attempt of its own. It leaves the active ones with all others, at the end.
local lost, is_lost = {}, {}
local function lose(id)
  if is_lost[id] then return end
  is_lost[id] = true
  lost[#lost + 1] = id
  local key = P .. 't:' .. id
  local found = read_record('HMGET', key, 'msg', 'state', 'o:lost') or {}
  if not found[1] or found[2] ~= 'active' then
    if not found[1] then drop_ghost(key) end
    healed = healed + 1
    return
  end
  local message, is_whole = without(found[1], {[7] = true, [11] = true})
  if not is_whole then
    call('ZADD', KEYS[6], now_s, id)
    call('HSET', key, 'state', 'archived', 'o:why', 'the message cannot be read')
    healed = healed + 1
    return
  end
  local losses = losses_of(found[3]) + 1
  recovered = recovered + 1
  if losses >= tonumber(ARGV[6]) then
    given_up = given_up + 1
    call('ZADD', KEYS[6], now_s, id)
    call('HSET', key, 'state', 'archived', 'msg', message .. ARGV[7], 'o:lost', losses)
  else
    call('ZADD', KEYS[5], now_s + math.min(losses, 5), id)
    call('HSET', key, 'state', 'retry', 'msg', message .. ARGV[7], 'o:lost', losses)
  end
end

if ARGV[5] == '1' then
  for _, id in ipairs(leases_over()) do lose(id) end
  -- Ids in the active list without a lease: nobody else looks for them. The oldest, and some by chance.
  local length = call('LLEN', KEYS[2])
  local from = math.floor(tonumber(ARGV[13]) * length)
  for _, window in ipairs({{-50, -1}, {from, from + 49}}) do
    local ids = call('LRANGE', KEYS[2], window[1], window[2])
    if ids[1] then
      for nth, score in ipairs(call('ZMSCORE', KEYS[3], unpack(ids))) do
        if not score then lose(ids[nth]) end
      end
    end
  end
  if lost[1] then
    drop_active(KEYS[2], lost)
    for from = 1, #lost, PAGE do call('ZREM', KEYS[3], unpack(lost, from, math.min(from + PAGE - 1, #lost))) end
  end
  -- Sets whose time is over: their members wait in their group again, where they stood.
  local sets = call('ZRANGE', KEYS[9], '-inf', '(' .. string.format('%.0f', now_s + 1), 'BYSCORE', 'LIMIT', 0, math.min(most, 100), 'WITHSCORES')
  -- A set of asynq's may hold any number of members: beyond a thousand they are left for the next step.
  local room = 1000
  local function reclaim(set, group, members)
    for at = 1, #members, 2 do call('ZADD', P .. 'g:' .. group, members[at + 1], members[at]) end
    if members[1] then call('SADD', KEYS[8], group) end
    call('ZREMRANGEBYRANK', set, 0, #members / 2 - 1)
    room = room - #members / 2
    if call('EXISTS', set) == 0 then
      call('ZREM', KEYS[9], set)
      reclaimed = reclaimed + 1
    else
      unfinished = 1
    end
  end
  for at = 1, #sets, 2 do
    if room <= 0 then
      unfinished = 1
      break
    end
    local set = sets[at]
    local group = string.sub(set, 1, #P + 2) == P .. 'g:' and string.match(string.sub(set, #P + 3), '^(.*):[^:]*$')
    local members = group and read_record('ZRANGE', set, 0, room - 1, 'WITHSCORES')
    if not members then
      -- The name is none of a set, or its key holds data of another program: that stays, and nobody is aggregating it.
      call('ZREM', KEYS[9], set)
      healed = healed + 1
    elseif read_record('ZCARD', P .. 'g:' .. group) == nil then
      -- There is no group to go back to. The others are not held up meanwhile.
      call('ZADD', KEYS[9], string.format('%.17g', now_s + LATER_S + tonumber(sets[at + 1]) % 1), set)
    else
      reclaim(set, group, members)
    end
  end
end

-- Groups that wait without being listed, and those that are listed without a member.
for _, group in ipairs(call('SRANDMEMBER', KEYS[8], 100)) do
  if call('EXISTS', P .. 'g:' .. group) == 1 then
    call('SADD', KEYS[10], group)
  else
    call('SREM', KEYS[8], group)
  end
end
for _, group in ipairs(call('SRANDMEMBER', KEYS[10], 100)) do
  if call('EXISTS', P .. 'g:' .. group) == 0 then
    call('SREM', KEYS[10], group)
  elseif call('SADD', KEYS[8], group) == 1 then
    healed = healed + 1
  end
end

-- What is over is deleted.
deleted = delete_over(P, KEYS[7], call('ZRANGE', KEYS[7], '-inf', now, 'BYSCORE', 'LIMIT', 0, most))
if deleted < most then
  deleted = deleted + trim_archive(P, KEYS[6], now, tonumber(ARGV[9]), tonumber(ARGV[10]), most - deleted)
end

-- The queue is listed as long as it has a task, also one on its way to another broker.
if ARGV[11] ~= '' and call('SISMEMBER', ARGV[11], ARGV[12]) == 0 then
  local has_tasks = call('EXISTS', P .. 'outlast:outgoing') == 1
  for nth = 1, 7 do has_tasks = has_tasks or (nth ~= 3 and call('EXISTS', KEYS[nth]) == 1) end
  if has_tasks then
    call('SADD', ARGV[11], ARGV[12])
    healed = healed + 1
  end
end

-- Who holds the leases that end first.
local held, is_known = {}, {}
local first = call('ZRANGE', KEYS[3], 0, 99, 'WITHSCORES')
for at = 2, #first, 2 do
  local fraction = tonumber(first[at]) % 1
  -- Infinity has a fraction that is no number.
  if fraction > 0 and not is_known[fraction] then
    is_known[fraction] = true
    held[#held + 1] = first[at]
  end
end

local next_due
for nth = 4, 5 do
  local head = call('ZRANGE', KEYS[nth], 0, 0, 'WITHSCORES')
  local at = tonumber(head[2])
  if at and (not next_due or at < next_due) then next_due = at end
end
return {due, recovered, given_up, reclaimed, deleted, healed, next_due and string.format('%.0f', next_due) or '', unfinished, held}
