#!lua
-- Have a lease be ended that ended in the epoch before, whether its process, which may not know, restores it later or
-- did already.
--
-- KEYS  as in reserve.lua
-- ARGV  1 id  2 window  3 remember, seconds as in finish.lua
-- Gives {"dropped"}.
local opener = redis.call('HGET', KEYS[3], 'o')
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'ended', 1)
redis.call('EXPIRE', KEYS[3], ARGV[3])
for running = 6, #KEYS, 2 do
    redis.call('ZREM', KEYS[running], ARGV[1])
end
if opener and redis.call('HGET', KEYS[4], 'opened') == opener and redis.call('HINCRBY', KEYS[4], 'leases', -1) <= 0 then
    redis.call('EXPIRE', KEYS[4], ARGV[2] + 60)
end
return {'dropped'}
