-- Ids of a list from its right end, which is where it runs or ran first. Where to begin is known by ids that stood around
-- the place (anchors), and found near where they stood. KEYS[1] the list. ARGV[1] ids wanted, [2] '' for the beginning, '1'
-- to look for the place, 'x' to look and begin anew if it is gone, [3] where it was, counted from the right, [4] and from the
-- left, [5] how far around is looked, [6] how many anchors come after the place (nearest first), then those, then the ones
-- before it (nearest first). Answers {found or not, length, where it begins, ids}.
local list, want = KEYS[1], tonumber(ARGV[1])
local length = redis.call('LLEN', list)
local start = ARGV[2] == '' and 0 or nil

-- Places of the anchors, counted from the right, as far as they are near.
local function near()
  local wanted, at = {}, {}
  for nth = 7, #ARGV do wanted[ARGV[nth]] = true end
  for _, middle in ipairs({tonumber(ARGV[3]), length - tonumber(ARGV[4])}) do
    middle = math.max(0, math.min(middle, length))
    local from = math.max(0, middle - tonumber(ARGV[5]))
    local to = middle + tonumber(ARGV[5])
    local ids = redis.call('LRANGE', list, -to - 1, -from - 1)
    -- A list that is shorter than the window begins at its left end.
    local last = from + #ids - 1
    for nth, id in ipairs(ids) do
      if wanted[id] then at[id] = last - nth + 1 end
    end
  end
  return at
end

-- The first anchor behind the place, unless most of those before it or behind it say that it has moved.
local function place(at)
  local last, moved = 6 + tonumber(ARGV[6]), nil
  for nth = 7, last do
    local mine = at[ARGV[nth]]
    if mine then
      local before, behind = 0, 0
      for other = 7, #ARGV do
        local stands = at[ARGV[other]]
        if stands and other > nth and other <= last then
          behind = behind + (stands > mine and 1 or -1)
        elseif stands and other > last then
          before = before + (stands < mine and 1 or -1)
        end
      end
      if before >= 0 and behind >= 0 then return mine end
      moved = moved or mine
    end
  end
  for nth = last + 1, #ARGV do
    if at[ARGV[nth]] then return at[ARGV[nth]] + 1 end
  end
  return moved
end

if not start then
  start = place(near())
  if not start and (ARGV[2] == 'x' or length <= tonumber(ARGV[5])) then start = 0 end
  if not start then return {0, length, 0, {}} end
end
local ids = redis.call('LRANGE', list, -start - want, -start - 1)
if start >= length then ids = {} end
local turned = {}
for nth = #ids, 1, -1 do turned[#turned + 1] = ids[nth] end
return {1, length, start, turned}
