-- Renews the node's own entry. ARGV: the device, its term. Answers the new term, or nothing: it has changed.
local device, term = ARGV[4], ARGV[5]
if call('HGET', D, device) ~= me .. ' ' .. term then return {} end
return { grant(device, tonumber(term)) }
