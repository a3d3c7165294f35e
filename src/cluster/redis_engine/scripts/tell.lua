-- What the node has. KEYS from 4: d:USER of each. ARGV from 4: device and term of each. Answers the entry of each.
local answer, losers = {}, {}
local last = tonumber(call('HGET', G, 'term') or '0')
local highest = last
for i = 4, #KEYS do
  local key, device, term = KEYS[i], ARGV[2 * i - 4], ARGV[2 * i - 3]
  local entry, node, other = call('HGET', key, device), nil, nil
  if entry then node, other = split(entry) end
  if entry and node ~= me and other >= tonumber(term) then
    answer[#answer + 1] = entry
  else
    if node == me and other > tonumber(term) then term = text(other) end
    if node and node ~= me then losers[#losers + 1] = { node, term, key, device } end
    call('HSET', key, device, me .. ' ' .. term)
    call('EXPIRE', key, 3600)
    highest = math.max(highest, tonumber(term))
    answer[#answer + 1] = me .. ' ' .. term
  end
end
if highest > last then call('HSET', G, 'term', text(highest)) end
for _, loser in ipairs(losers) do notify(loser[1], 'Y', loser[2], loser[3], loser[4]) end
return answer
