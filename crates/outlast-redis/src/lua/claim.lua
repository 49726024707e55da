-- Leases tasks. KEYS[2] pending, [3] active, [4] lease, [5] paused, [6] scheduled, [7] retry, [8] groups,
-- [9] aggregation_sets. ARGV[4] the prefix of the queue's keys, [5] now in seconds (with fraction), [6] now in nanoseconds,
-- [7] tasks at most, [8] payload bytes at most, [9] the lease's score, [10] the value of o:run, [11] due tasks moved at most;
-- for groups: [12] groups looked at most, [13] the greatest set, [14] sets at most, [15] the number of policies, then per policy:
-- pattern, 'p' for a prefix, grace, greatest delay or '', greatest size or '0'; then one id per set that may be made.
-- Answers {status, lost, verb, rest, tasks, sets, ghosts}: tasks are id, msg, result, o:at and o:lost, one after another, sets are
-- {name, the same of its members}. A task without its message is one whose key holds data of another program: it left the line,
-- and is not leased. A repeat is answered with what was taken the first time: claim_again.lua goes on from there.
local P, room, score = ARGV[4], tonumber(ARGV[7]), ARGV[9]
local lost, earlier = arrive()
if not lost then return earlier end
if ARGV[15] ~= '0' then
  -- Nothing is written before everything is known to be what it should be.
  for _, nth in ipairs({2, 3}) do call('LLEN', KEYS[nth]) end
  for _, nth in ipairs({4, 9}) do call('ZCARD', KEYS[nth]) end
  call('SCARD', KEYS[8])
end
local sets, taken_sets, more, ghosts = {}, {}, false, 0
