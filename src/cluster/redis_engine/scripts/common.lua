-- Before every script: names, time, and what scripts share.
-- KEYS: g, m, o, and d:USER where a script needs it. ARGV: the generation that the node knows, the node, PREFIX:i:, then more.
-- An entry is the text `node term`, a row of m `beat phase ...`, a debt `number since`. Terms have 16 digits: `..` would keep 14.
local G, M, O, D = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me = ARGV[2]
local time = redis.call('TIME')
local micros = time[1] * 1000000 + time[2]
local now = math.floor(micros / 1000)

local function text(number)
  return string.format('%.0f', number)
end

-- A number that rises with the time, and never falls.
local function next_number(field, above)
  local last = tonumber(redis.call('HGET', G, field) or '0')
  local number = text(math.max(micros, last + 1, above + 1))
  redis.call('HSET', G, field, number)
  return number
end

local function split(entry)
  local node, term = string.match(entry, '^(%x+) (%d+)$')
  return node, tonumber(term)
end

local function is_dead(node)
  local row = redis.call('HGET', M, node)
  return not row or now - tonumber(string.match(row, '^%d+')) >= 6000
end

local function owe(node)
  local number = next_number('debt', 0)
  redis.call('HSET', O, node, number .. ' ' .. text(now))
  return number
end

-- Empty: the node owes nothing.
local function debt_of(node)
  local debt = redis.call('HGET', O, node)
  return debt and string.match(debt, '^%d+') or ''
end

local function is_young(debt)
  return now - tonumber(string.match(debt, ' (%d+)$')) < 6000
end

local function is_sure()
  local debts = redis.call('HGETALL', O)
  for i = 1, #debts, 2 do
    if is_young(debts[i + 1]) or not is_dead(debts[i]) then return 0 end
  end
  return 1
end

-- Makes the entry of a device this node's.
local function put(key, device, term)
  redis.call('HSET', key, device, me .. ' ' .. term)
  redis.call('EXPIRE', key, 3600)
end

-- The same with a new term.
local function grant(device, above)
  local term = next_number('term', above)
  put(D, device, term)
  return term
end

-- Tells a node: `M`, another one has opened the parcel of this term; or `Y`, another one has the device with this term.
local function notify(node, kind, term, key, device)
  -- The user stands after PREFIX:d:, which is as long as PREFIX:i:.
  local user = string.sub(key, #ARGV[3] + 1)
  redis.call('PUBLISH', ARGV[3] .. node, 'N' .. kind .. term .. ' ' .. #user .. ' ' .. user .. device)
end
