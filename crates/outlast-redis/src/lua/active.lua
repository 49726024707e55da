-- Takes ids out of the active list. Both ends are looked at first: an LREM in a list of 10,000 costs 100 µs, and what ends
-- is nearly always among the oldest or the newest. Of many that are elsewhere the whole list is written anew: that costs as
-- much as some 40 times LREM.
local REWRITE_FROM = 40
local function drop_active(active, ids)
  local total = redis.call('LLEN', active)
  -- Where little is to be searched, searching is cheapest.
  if #ids * total <= 1000 then
    for _, id in ipairs(ids) do redis.call('LREM', active, '1', id) end
    return
  end
  local function drop_from_window(active, wanted, left, size, head)
    local window = head and redis.call('LRANGE', active, 0, size - 1) or redis.call('LRANGE', active, -size, -1)
    local keep, found = {}, 0
    for _, id in ipairs(window) do
      if wanted[id] then
        found = found + 1
        wanted[id] = nil
      else
        keep[#keep + 1] = id
      end
    end
    if found == 0 then return left end
    if head then
      redis.call('LTRIM', active, #window, -1)
      for nth = #keep, 1, -1 do redis.call('LPUSH', active, keep[nth]) end
    else
      redis.call('LTRIM', active, 0, -#window - 1)
      if keep[1] then redis.call('RPUSH', active, unpack(keep)) end
    end
    return left - found
  end
  local function rewrite_active(active, wanted)
    local all, keep = redis.call('LRANGE', active, 0, -1), {}
    for _, id in ipairs(all) do
      if wanted[id] then
        wanted[id] = nil
      else
        keep[#keep + 1] = id
      end
    end
    redis.call('DEL', active)
    for from = 1, #keep, 1000 do redis.call('RPUSH', active, unpack(keep, from, math.min(from + 999, #keep))) end
  end
  local wanted, left = {}, 0
  for _, id in ipairs(ids) do
    if not wanted[id] then
      wanted[id] = true
      left = left + 1
    end
  end
  local size = 2 * left + 16
  left = drop_from_window(active, wanted, left, size, false)
  if left > 0 and total > size then left = drop_from_window(active, wanted, left, size, true) end
  if left >= REWRITE_FROM then
    rewrite_active(active, wanted)
  elseif left > 0 then
    for id in pairs(wanted) do redis.call('LREM', active, '1', id) end
  end
end
