-- Nearly always there is none of the three.
if call('EXISTS', KEYS[5], KEYS[6], KEYS[7]) > 0 then
  if call('EXISTS', KEYS[5]) == 1 then return {APPLIED, lost, 'c', 'P', {}, {}, 0} end
  call('LLEN', KEYS[3])
  call('ZCARD', KEYS[4])
  local _, gone = promote({scheduled = KEYS[6], retry = KEYS[7], pending = KEYS[2], groups = KEYS[8], prefix = P}, tonumber(ARGV[5]), ARGV[6], ARGV[11])
  ghosts = gone
end
