-- Leases tasks. KEYS[2] pending, [3] active, [4] lease, [5] paused, [6] scheduled, [7] retry, [8] groups,
-- [9] aggregation_sets. ARGV[4] the prefix of the queue's keys, [5] now in seconds (with fraction), [6] now in nanoseconds,
-- [7] tasks at most, [8] payload bytes at most, [9] the lease's score, [10] the value of o:run, [11] due tasks moved
-- at most, [12] groups looked at most, [13] the greatest set, [14] sets at most, [15] the number of policies, then per policy: pattern,
-- 'p' for a prefix, grace, greatest delay or '', greatest size or '0'; then one id per set that may be made.
-- Answers {status, lost, verb, rest, tasks, sets, ghosts}. A task without its message is one whose key holds data of
-- another program: it left the line, and is not leased.
local LONG = string.rep('-', 65)
local P, now_s, now_ns = ARGV[4], tonumber(ARGV[5]), ARGV[6]
local want, bytes_max, score = tonumber(ARGV[7]), tonumber(ARGV[8]), ARGV[9]

local function fields_of(id)
  return read_record('HMGET', P .. 't:' .. id, 'msg', 'result', 'o:at', 'o:lost') or {}
end
local function members_of(ids)
  local members = {}
  for _, id in ipairs(ids) do members[#members + 1] = {id, unpack(fields_of(id), 1, 4)} end
  return members
end
local function ours(found)
  return found and tonumber(found) % 1 == tonumber(score) % 1
end

-- What an earlier call of this number took, as far as it is still held.
local function again(lost, taken)
  local tasks, sets = {}, {}
  for _, id in ipairs(taken[1] or {}) do
    local held = call('ZSCORE', KEYS[4], id)
    if ours(held) then
      local found = fields_of(id)
      local run = read_record('HGET', P .. 't:' .. id, 'o:run') or false
      tasks[#tasks + 1] = {id, held, run, unpack(found, 1, 4)}
    end
  end
  for _, set in ipairs(taken[2] or {}) do
    local held = call('ZSCORE', KEYS[9], P .. 'g:' .. set)
    if ours(held) then
      sets[#sets + 1] = {set, held, members_of(call('ZRANGE', P .. 'g:' .. set, 0, -1))}
    end
  end
  local rest = call('LLEN', KEYS[2]) > 0 and 'M' or 'E'
  return {REPEATED, lost, 'c', taken[3] or rest, tasks, sets, 0}
end

local lost, earlier = arrive()
if not lost then
  if earlier[1] == REPEATED and earlier[3] == 'c' then return again(earlier[2], earlier[4]) end
  return earlier
end
if call('EXISTS', KEYS[5]) == 1 then return {APPLIED, lost, 'c', 'P', {}, {}, 0} end

-- Nothing is written before everything is known to be what it should be; what is read below is not asked for twice.
call('LLEN', KEYS[3])
local held = call('ZCARD', KEYS[4])
if ARGV[15] ~= '0' then
  call('LLEN', KEYS[2])
  call('SCARD', KEYS[8])
  call('ZCARD', KEYS[9])
end

local _, ghosts = promote({scheduled = KEYS[6], retry = KEYS[7], pending = KEYS[2], groups = KEYS[8], prefix = P}, now_s, now_ns, ARGV[11])
local sets, taken_sets, more = {}, {}, false
