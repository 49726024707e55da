-- Why a batch can be repeated (design §5). Prefixed to every script that carries a stamp.
-- KEYS[1] the session's hash; ARGV[1] the lane, ARGV[2] the batch's number, ARGV[3] seconds to live from now on, or below zero
-- where that was said lately: then they are for a record that is new after all.
-- A lane holds "<seq>", or "<seq> <packed>" where the answer was not the usual one, or "<seq> c<id>" after a claim of one task.
local call = redis.call
local APPLIED, REPEATED, GHOST, DECLINED = 0, 1, 2, 3
local seq, is_new, live = tonumber(ARGV[2]), false, tonumber(ARGV[3])

-- The number after which batches were forgotten (-1: none were), or nil and the whole answer.
local function arrive()
  local kept = call('HGET', KEYS[1], ARGV[1])
  if not kept then
    is_new = true
    if seq == 1 then return -1 end
    return 0
  end
  local space = string.find(kept, ' ', 1, true)
  local last = tonumber(space and string.sub(kept, 1, space - 1) or kept)
  if seq == last + 1 then return -1 end
  if seq > last then return last end
  if seq < last then return nil, {GHOST, last} end
  local lost, verb, answer = -1, '', {}
  if space and string.byte(kept, space + 1) == 99 then return nil, {REPEATED, -1, 'c', {{string.sub(kept, space + 2)}, {}, 'M'}} end
  if space then lost, verb, answer = unpack(cmsgpack.unpack(string.sub(kept, space + 1))) end
  return nil, {REPEATED, lost, verb, answer}
end

-- Written last, after everything else has succeeded.
local function remember(lost, verb, answer)
  local kept = ARGV[2]
  if lost >= 0 or answer then kept = kept .. ' ' .. cmsgpack.pack({lost, verb, answer or {}}) end
  -- Whoever may not do this must be told before there is a record, or the next batch of this number is taken for a repeat. (It
  -- cannot come first of all: after any write a script is no longer refused for want of memory.)
  if live > 0 or is_new then call('EXPIRE', KEYS[1], math.abs(live)) end
  call('HSET', KEYS[1], ARGV[1], kept)
  if is_new then call('EXPIRE', KEYS[1], math.abs(live)) end
end
