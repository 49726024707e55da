-- Takes ids out of a long list. They are looked for in the stretch in which they should be (behind `skip` ids from the right
-- end, as far as `depth`), and among the `few` ids at the left end. Whoever has looked everywhere else says so, and ids that
-- are nowhere are then passed over. An id that is found is overwritten and all that were are removed together: one by one,
-- each would cost the way to it.
local GONE = '\0'
local function cutter(list, skip, depth, few, is_last)
  local length, at, found = redis.call('LLEN', list), nil, {}
  local from, to = math.max(0, length - depth), length - skip - 1
  local function look()
    at = {}
    if to >= from then
      for nth, id in ipairs(redis.call('LRANGE', list, from, to)) do at[id] = from + nth - 1 end
    end
    local left = math.min(from, few)
    if left > 0 then
      for nth, id in ipairs(redis.call('LRANGE', list, 0, left - 1)) do at[id] = nth - 1 end
    end
  end
  return {
    -- Notes an id to be taken out; false if it has to be looked for.
    can = function(id)
      if not at then look() end
      if not at[id] then return is_last end
      found[#found + 1] = at[id]
      at[id] = nil
      return true
    end,
    all = function()
      local right, left = 0, 0
      for _, place in ipairs(found) do
        redis.call('LSET', list, place, GONE)
        if place >= from then right = right + 1 else left = left + 1 end
      end
      if right > 0 then redis.call('LREM', list, -right, GONE) end
      if left > 0 then redis.call('LREM', list, left, GONE) end
    end,
  }
end
