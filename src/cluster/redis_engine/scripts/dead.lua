-- When the node of a row said last that it is alive. What cannot be read is long ago.
local function beat_of(row)
  return tonumber(string.match(row, '^%d+') or '0')
end

-- Which nodes are dead.
local function split(entry)
  local node, term = string.match(entry, '^(%x+) (%d+)$')
  return node, tonumber(term)
end

local function is_dead(node)
  local row = call('HGET', M, node)
  return not row or now - beat_of(row) >= 6000
end
