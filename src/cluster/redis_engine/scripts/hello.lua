-- Joins. ARGV: the run of the server, whether the node says that it owes. Answers the generation, the debt, and how
-- long ago the directory was made (by a release that did not note it: long ago).
-- The generation of a new directory is the time in microseconds, or more: a node that knew the number already would not be answered
-- REBORN.
local known, run, owes = tonumber(ARGV[1]), ARGV[4], ARGV[5] == '1'
local generation = tonumber(call('HGET', G, 'gen') or '0')
if generation == 0 or call('HGET', G, 'run') ~= run or known > generation then
  generation = math.max(micros, generation + 1, known + 1)
  call('HSET', G, 'gen', text(generation), 'run', run, 'since', text(now))
  local rows = call('HGETALL', M)
  for i = 1, #rows, 2 do owe(rows[i]) end
end
local returned = known > 0 and (known ~= generation or is_dead(me))
local row = call('HGET', M, me)
call('HSET', M, me, text(now) .. (row and string.match(row, ' .*$') or ' joining'))
if owes or returned then owe(me) end
local age = now - tonumber(call('HGET', G, 'since') or '0')
return { text(generation), debt_of(me), text(math.max(0, age)) }
