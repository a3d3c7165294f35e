-- Before every script but hello: the directory is the one that the node knows.
if call('HGET', G, 'gen') ~= ARGV[1] then return redis.status_reply('REBORN') end
