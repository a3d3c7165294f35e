-- The node leaves.
call('HDEL', M, me)
call('HDEL', O, me)
return {}
