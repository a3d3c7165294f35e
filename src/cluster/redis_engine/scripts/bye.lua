-- The node leaves.
redis.call('HDEL', M, me)
redis.call('HDEL', O, me)
return {}
