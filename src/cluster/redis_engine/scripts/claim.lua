-- Takes a device that nobody has. ARGV: the device, how many devices the user may have (0: any number).
local device, limit = ARGV[4], tonumber(ARGV[5])
local entry = call('HGET', D, device)
if entry then
  local node, term = split(entry)
  if node == me then return { 'mine', text(term) } end
  if not is_dead(node) then return { 'held', entry } end
  local granted = grant(device, term)
  notify(node, 'Y', granted, D, device)
  return { 'over', granted }
end
if limit > 0 and call('HLEN', D) >= limit then
  local entries, left = call('HGETALL', D), 0
  for i = 1, #entries, 2 do
    if is_dead((split(entries[i + 1]))) then call('HDEL', D, entries[i]) else left = left + 1 end
  end
  if left >= limit then return { 'full' } end
end
return { 'new', grant(device, 0), is_sure() }
