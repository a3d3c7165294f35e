-- Takes the entry from a node. ARGV: the device, the entry, `M` or, if forced, `Y`. Answers the new term, or nothing: it has changed.
local device, from, kind = ARGV[4], ARGV[5], ARGV[6]
local entry = call('HGET', D, device)
if not entry then return {} end
local node, term = split(entry)
local from_node, from_term = split(from)
if entry == from then
  local granted = grant(device, term)
  if node ~= me then notify(node, kind, kind == 'M' and text(term) or granted, D, device) end
  return { granted }
end
-- The same call again, after its answer was lost.
if node == me and term > from_term then return { text(term) } end
return {}
