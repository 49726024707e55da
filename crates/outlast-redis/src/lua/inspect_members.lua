-- Members of sorted sets in the order of (score, id) behind a place. KEYS the sets. ARGV[1] members of each at most, [2] the
-- score and [3] the id of the place, both left out at the beginning. Answers per set {id, score, id, score, ...}.
local score, id = ARGV[2], ARGV[3]

-- What another program has put in the place of a group or a set has no members; in the place of all tasks of a state it is an error.
local function read(key, command, ...)
  if string.find(key, '}:g:', 1, true) then return read_record(command, key, ...) end
  return redis.call(command, key, ...)
end

-- Bytes, as Redis compares them: Lua's own comparison follows the server's locale.
local function is_after(one, two)
  for at = 1, math.min(#one, #two) do
    local left, right = string.byte(one, at), string.byte(two, at)
    if left ~= right then return left > right end
  end
  return #one > #two
end
local function rank(key)
  local low = read(key, 'ZCOUNT', '-inf', '(' .. score)
  if not low then return 0 end
  local high = low + redis.call('ZCOUNT', key, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if is_after(redis.call('ZRANGE', key, middle, middle)[1], id) then high = middle else low = middle + 1 end
  end
  return low
end
local answer = {}
for nth, key in ipairs(KEYS) do
  local from = score and rank(key) or 0
  answer[nth] = read(key, 'ZRANGE', from, from + tonumber(ARGV[1]) - 1, 'WITHSCORES') or {}
end
return answer
