-- Takes ids out of the active list. Both ends are looked at first, the newer one before: an LREM in a list of 10,000 costs 100 µs,
-- and what ends is nearly always among the newest or the oldest. Of many that are elsewhere the whole list is written anew: that
-- costs as much as some 40 times LREM.
local REWRITE_FROM, LATELY = 40, 2048
local function drop_active(active, ids)
  local total = redis.call('LLEN', active)
  -- Where little is to be searched, searching is cheapest.
  if #ids * total <= 1000 then
    for _, id in ipairs(ids) do redis.call('LREM', active, '1', id) end
    return
  end
  if #ids <= 4 then
    for _, id in ipairs(ids) do
      local is_new = redis.call('LPOS', active, id, 'MAXLEN', '64')
      redis.call('LREM', active, is_new and '1' or '-1', id)
    end
    return
  end
  local wanted, left = {}, 0
  for _, id in ipairs(ids) do
    if not wanted[id] then
      wanted[id] = true
      left = left + 1
    end
  end
  -- Cuts the end off, as far as something is found in it, and puts back what is to stay.
  local function drop_from_end(size, is_head)
    local found = is_head and redis.call('LRANGE', active, '0', size - 1) or redis.call('LRANGE', active, -size, '-1')
    local passed, keep, cut, kept = {}, {}, 0, 0
    for nth = 1, #found do
      local id = found[is_head and nth or #found + 1 - nth]
      if wanted[id] then
        wanted[id] = nil
        left, cut, kept = left - 1, nth, #passed
      else
        passed[#passed + 1] = id
      end
    end
    if cut == 0 then return end
    for nth = 1, kept do keep[nth] = passed[kept + 1 - nth] end
    if is_head then redis.call('LTRIM', active, cut, '-1') else redis.call('LTRIM', active, '0', -cut - 1) end
    if kept > 0 then redis.call(is_head and 'LPUSH' or 'RPUSH', active, unpack(keep)) end
  end
  local size = 2 * left + 16
  drop_from_end(size, true)
  if left > 0 and total > size then drop_from_end(size, false) end
  -- A worker settles in no order: what it has claimed lately may stand somewhat further on.
  if left > 2 and total > 2 * size then drop_from_end(LATELY, true) end
  if left >= REWRITE_FROM then
    local keep = {}
    for _, id in ipairs(redis.call('LRANGE', active, 0, -1)) do
      if wanted[id] then wanted[id] = nil else keep[#keep + 1] = id end
    end
    redis.call('DEL', active)
    for from = 1, #keep, 1000 do redis.call('RPUSH', active, unpack(keep, from, math.min(from + 999, #keep))) end
  elseif left > 0 then
    for id in pairs(wanted) do redis.call('LREM', active, '1', id) end
  end
end
