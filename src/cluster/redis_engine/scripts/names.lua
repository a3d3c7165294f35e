-- Before every script. KEYS: g, m, o, and d:USER where a script needs it. ARGV: the generation that the node knows, the node,
-- PREFIX:i:, then more. An entry is the text `node term`, a row of m `beat phase ...`, a debt `number since`.
local call = redis.call
local G, M, O, D = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local me = ARGV[2]
