-- The node is alive. ARGV: its phase and what it says of itself. Answers the time, the debt, and all nodes with their rows.
if is_dead(me) then owe(me) end
call('HSET', M, me, text(now) .. ' ' .. ARGV[4])
local rows, is_here = call('HGETALL', M), {}
local answer = { text(now), '' }
for i = 1, #rows, 2 do
  if now - beat_of(rows[i + 1]) > 60000 or not string.match(rows[i], '^%x+$') then
    call('HDEL', M, rows[i])
  else
    is_here[rows[i]] = true
    answer[#answer + 1] = rows[i]
    answer[#answer + 1] = rows[i + 1]
  end
end
local debts = call('HGETALL', O)
for i = 1, #debts, 2 do
  if not is_here[debts[i]] and now - tonumber(string.match(debts[i + 1], '%d+$')) >= 6000 then call('HDEL', O, debts[i]) end
end
answer[2] = debt_of(me)
return answer
