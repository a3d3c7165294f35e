-- Deletes the entry of a dead node. ARGV: the device, the entry.
local device, entry = ARGV[4], ARGV[5]
if call('HGET', D, device) == entry and is_dead((split(entry))) then call('HDEL', D, device) end
return {}
