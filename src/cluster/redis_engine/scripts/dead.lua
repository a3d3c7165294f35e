-- Which nodes are dead.
local function split(entry)
  local node, term = string.match(entry, '^(%x+) (%d+)$')
  return node, tonumber(term)
end

local function is_dead(node)
  local row = call('HGET', M, node)
  return not row or now - tonumber(string.match(row, '^%d+')) >= 6000
end
