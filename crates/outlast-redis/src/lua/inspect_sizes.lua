-- How many members groups and sets have. KEYS their keys. Answers a number for each: none where another program has put something else.
local sizes = {}
for nth, key in ipairs(KEYS) do sizes[nth] = read_record('ZCARD', key) or 0 end
return sizes
