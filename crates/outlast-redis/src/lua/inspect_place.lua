-- The state of a task by its hash. asynq's archiving can stop half-way (contract §5.4, case 6): then the hash still says
-- active, and the truth is in a sorted set. `sorted` names the sorted sets by state, `lease` the leases. Data of another program
-- at its key is no task, and has no state.
local function state_of(sorted, lease, id, key)
  local state = read_record('HGET', key, 'state')
  if state ~= 'active' or redis.call('ZSCORE', lease, id) then return state end
  for other, set in pairs(sorted) do
    if redis.call('ZSCORE', set, id) then return other end
  end
  return state
end
