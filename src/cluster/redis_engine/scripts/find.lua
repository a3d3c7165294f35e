-- Looks a device up. ARGV: the device, an entry that counts as none (or empty). Answers the entry and whether its node is dead; or
-- only whether the directory is sure.
local entry = call('HGET', D, ARGV[4])
if entry and entry ~= ARGV[5] then return { entry, is_dead((split(entry))) and 1 or 0 } end
return { is_sure() }
