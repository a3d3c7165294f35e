-- Makes the entry of a device this node's, with a new term, which rises with the time and never falls.
local function grant(device, above)
  local term = text(math.max(micros, (call('HGET', G, 'term') or 0) + 1, above + 1))
  call('HSET', G, 'term', term)
  call('HSET', D, device, me .. ' ' .. term)
  call('EXPIRE', D, 3600)
  return term
end
