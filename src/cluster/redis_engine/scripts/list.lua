-- The devices of a user. Answers whether the directory is sure; then device, entry, and whether its node is dead, of each.
local entries, dead = call('HGETALL', D), {}
local answer = { is_sure() }
for i = 1, #entries, 2 do
  local node = split(entries[i + 1])
  if dead[node] == nil then dead[node] = is_dead(node) and 1 or 0 end
  answer[#answer + 1] = entries[i]
  answer[#answer + 1] = entries[i + 1]
  answer[#answer + 1] = dead[node]
end
return answer
