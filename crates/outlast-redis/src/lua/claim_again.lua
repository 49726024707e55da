-- What an earlier claim took, as far as it is still held. KEYS[1] lease, [2] aggregation_sets. ARGV[1] the prefix of the queue's
-- keys, [2] the fraction of the leases, [3] the number of ids, then the ids, then the names of the sets.
-- Answers {tasks, sets}: tasks are {score, o:run, id, msg, result, o:at, o:lost}, sets {score, name, the five of each member}.
local P, fraction, count = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local function is_ours(score) return score and tonumber(score) % 1 == fraction end
local function add(task, id)
  local found = read_record('HMGET', P .. 't:' .. id, 'msg', 'result', 'o:at', 'o:lost') or {}
  task[#task + 1] = id
  for nth = 1, 4 do task[#task + 1] = found[nth] or false end
end
local tasks, sets = {}, {}
for at = 4, 3 + count do
  local score = redis.call('ZSCORE', KEYS[1], ARGV[at])
  if is_ours(score) then
    local task = {score, read_record('HGET', P .. 't:' .. ARGV[at], 'o:run') or false}
    add(task, ARGV[at])
    tasks[#tasks + 1] = task
  end
end
for at = 4 + count, #ARGV do
  local key = P .. 'g:' .. ARGV[at]
  local score = redis.call('ZSCORE', KEYS[2], key)
  if is_ours(score) then
    local members = {}
    for _, id in ipairs(redis.call('ZRANGE', key, 0, -1)) do add(members, id) end
    sets[#sets + 1] = {score, ARGV[at], members}
  end
end
return {tasks, sets}
