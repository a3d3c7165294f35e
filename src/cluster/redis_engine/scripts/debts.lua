-- Debts. Their numbers rise with the time, and never fall.
local function owe(node)
  local number = text(math.max(micros, (call('HGET', G, 'debt') or 0) + 1))
  call('HSET', G, 'debt', number)
  call('HSET', O, node, number .. ' ' .. text(now))
  return number
end

-- Empty: the node owes nothing.
local function debt_of(node)
  local debt = call('HGET', O, node)
  return debt and string.match(debt, '^%d+') or ''
end
