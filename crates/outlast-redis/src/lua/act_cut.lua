-- Takes ids out of a long list, wherever they are, without passing over more of it than is allowed. First the stretch is
-- looked at in which they should be (behind `skip` ids from the right end, as far as `depth`), and `few` ids at the left end;
-- ids that are elsewhere cost the whole list each. An id that is found is overwritten and all that were are removed
-- together: one by one, each would cost the way to it.
local GONE = '\0'
local function cutter(list, skip, depth, few, allowed)
  local length, at, deep, found = redis.call('LLEN', list), nil, {}, {}
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
    -- Notes an id to be taken out; false if there is no room for it in this call.
    can = function(id)
      if not at then look() end
      if at[id] then
        found[#found + 1] = at[id]
        at[id] = nil
        return true
      end
      if #deep > 0 and (#deep + 1) * length > allowed then return false end
      deep[#deep + 1] = id
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
      for _, id in ipairs(deep) do redis.call('LREM', list, 0, id) end
    end,
  }
end
