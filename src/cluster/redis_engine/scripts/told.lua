-- The node has told all. ARGV: the debt that it had when it began.
if debt_of(me) == ARGV[4] then call('HDEL', O, me) end
return {}
