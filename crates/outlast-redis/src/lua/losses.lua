-- The leases that a task has lost, with one more. What is no count of ours is none.
local LOSSES_MAX = 1000000
local function one_more_loss(text)
  local losses = tonumber(string.match(text or '', '^%d+$') or '0')
  return string.format('%.0f', math.min(losses, LOSSES_MAX) + 1)
end
