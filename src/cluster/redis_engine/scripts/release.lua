-- Deletes the node's own entry. ARGV: the device, its term.
local device, term = ARGV[4], ARGV[5]
if call('HGET', D, device) == me .. ' ' .. term then call('HDEL', D, device) end
return {}
