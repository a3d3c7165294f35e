-- Whether no node owes. A debt lapses when it and the debtor's last beat are both old.
local function is_sure()
  local debts = call('HGETALL', O)
  for i = 1, #debts, 2 do
    if now - tonumber(string.match(debts[i + 1], '%d+$')) < 6000 or not is_dead(debts[i]) then return 0 end
  end
  return 1
end
