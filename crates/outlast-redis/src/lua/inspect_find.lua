-- Finds ids in a stretch of a list. KEYS[1] the list, ARGV[1] and [2] the places, counted from the right end, between which is
-- looked, [3...] the ids. Answers {length, nth id, its place, nth id, its place, ...}.
local nth_of, answer = {}, {redis.call('LLEN', KEYS[1])}
for nth = 3, #ARGV do nth_of[ARGV[nth]] = nth - 2 end
local ids = redis.call('LRANGE', KEYS[1], -tonumber(ARGV[2]), -tonumber(ARGV[1]) - 1)
local last = tonumber(ARGV[1]) + #ids
for at = #ids, 1, -1 do
  local nth = nth_of[ids[at]]
  if nth then
    answer[#answer + 1] = nth
    answer[#answer + 1] = last - at
  end
end
return answer
