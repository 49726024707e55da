-- Pauses or resumes a schedule. KEYS[1] states of schedules, [2] its view. ARGV[1] its name, [2] 'pause' or 'resume', [3] now
-- in milliseconds. Answers 1, or 0 if it was so already. In a Cluster: first 1, then 2.
local until_ms, paused, last = state(KEYS[1], ARGV[1])
if (ARGV[2] == 'pause') == (paused ~= '-') then return 0 end
if ARGV[2] == 'pause' then
  keep(KEYS[1], ARGV[1], until_ms, ARGV[3], last)
  call('PERSIST', KEYS[2])
  return 1
end
-- The ticks of the pause are not caught up: catching up begins behind this moment.
keep(KEYS[1], ARGV[1], until_ms, '-', later(last, ARGV[3]))
local left = until_ms == '-' and 0 or tonumber(until_ms) - tonumber(ARGV[3])
if left > 0 then
  call('PEXPIRE', KEYS[2], string.format('%d', left))
else
  call('DEL', KEYS[2])
end
return 1
