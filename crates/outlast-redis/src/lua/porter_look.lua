-- Reads tasks as they would travel. KEYS[1] lease, [2] scheduled, [3] retry, [4] archived, [5] completed. ARGV[1] the prefix of the
-- queue's keys, [2...] the ids. Answers a row as in porter_row.lua for each, false if there is none or it is on its way. Writes nothing.
local P = ARGV[1]
local sorted = {scheduled = KEYS[2], retry = KEYS[3], archived = KEYS[4], completed = KEYS[5]}
local rows = {}
for nth = 2, #ARGV do
  local id = ARGV[nth]
  local key = P .. 't:' .. id
  local state = state_of(sorted, KEYS[1], id, key)
  if not state or state == 'outgoing' then
    rows[#rows + 1] = false
  else
    local set = sorted[state]
    if state == 'active' then set = KEYS[1] end
    if state == 'aggregating' then set = P .. 'g:' .. (call('HGET', key, 'group') or '') end
    rows[#rows + 1] = row_of(P, id, state, set and read_record('ZSCORE', set, id) or '-')
  end
end
return rows
