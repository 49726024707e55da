-- Reading and changing a stored TaskMessage without knowing all of its fields (contract §2.1).
local function varint(text, at)
  local byte = string.byte(text, at)
  if not byte then return nil end
  if byte < 128 then return byte, at + 1 end
  local value, unit = byte - 128, 128
  for next = at + 1, at + 9 do
    byte = string.byte(text, next)
    if not byte then return nil end
    value = value + (byte % 128) * unit
    unit = unit * 128
    if byte < 128 then return value, next + 1 end
  end
  return nil
end

-- Calls visit(field, value, from, to) for each field; false if the message cannot be read.
local function each_field(text, visit)
  local at = 1
  while at <= #text do
    local from, tag, value = at, nil, nil
    tag, at = varint(text, at)
    if not tag then return false end
    local kind = tag % 8
    if kind == 0 then
      value, at = varint(text, at)
      if not value then return false end
    elseif kind == 2 then
      local size
      size, at = varint(text, at)
      if not size or at + size - 1 > #text then return false end
      value = {at, at + size - 1}
      at = at + size
    elseif kind == 1 then
      at = at + 8
    elseif kind == 5 then
      at = at + 4
    else
      return false
    end
    if at > #text + 1 then return false end
    visit((tag - kind) / 8, value, from, at - 1)
  end
  return true
end

-- The last value of each field, texts as texts; nil if the message cannot be read.
local function read_message(text)
  local found = {}
  local whole = each_field(text, function(field, value)
    if type(value) == 'table' then value = string.sub(text, value[1], value[2]) end
    found[field] = value
  end)
  return whole and found or nil
end

-- The message without some fields: what is not known is kept. Unchanged, and false, if it cannot be read.
local function without(text, fields)
  local kept, from = {}, 1
  local whole = each_field(text, function(field, _, first, last)
    if fields[field] then
      kept[#kept + 1] = string.sub(text, from, first - 1)
      from = last + 1
    end
  end)
  if not whole then return text, false end
  kept[#kept + 1] = string.sub(text, from)
  return table.concat(kept), true
end

local function number_field(field, value)
  if value == 0 then return '' end
  local bytes = {string.char(field * 8)}
  while value >= 128 do
    bytes[#bytes + 1] = string.char(128 + value % 128)
    value = math.floor(value / 128)
  end
  bytes[#bytes + 1] = string.char(value)
  return table.concat(bytes)
end
