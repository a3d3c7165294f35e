-- Deletes the node's own entry. ARGV: the device, its term.
local device, term = ARGV[4], ARGV[5]
if redis.call('HGET', D, device) == me .. ' ' .. term then redis.call('HDEL', D, device) end
return {}
