-- The bytes of a message's payload. asynq writes type and payload first (fields 1 and 2); anything else counts whole.
local function payload_size(message)
  local at = 1
  for _, tag in ipairs({10, 18}) do
    if string.byte(message, at) ~= tag then return tag == 18 and 0 or #message end
    local size, unit = 0, 1
    at = at + 1
    repeat
      local byte = string.byte(message, at)
      if not byte or unit > 2 ^ 40 then return #message end
      size = size + (byte % 128) * unit
      unit = unit * 128
      at = at + 1
    until byte < 128
    if tag == 18 then return size end
    at = at + size
  end
end
