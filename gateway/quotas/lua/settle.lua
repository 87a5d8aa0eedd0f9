#!lua flags=allow-oom
-- End a reservation: charge what was sent, give back what was not. A second call changes nothing.
--
-- KEYS  1 usage  2 lease  3 content, as in reserve.lua
-- ARGV  1 sent       bytes of the representation that left
--       2 delivered  1 if any byte left or the answer was whole, else 0: then the download itself is given back,
--                    unless another of the same content is running or was delivered
--       3 window     seconds, as in reserve.lua, from now on
--       4 tombstone  seconds for which a reservation that arrives late is refused
-- Gives 1 if this call settled the lease, 0 if there was nothing to settle.
local usage, lease, content = KEYS[1], KEYS[2], KEYS[3]
local sent, delivered = tonumber(ARGV[1]), tonumber(ARGV[2])
local window, tombstone = tonumber(ARGV[3]), tonumber(ARGV[4])

local state = redis.call('HMGET', lease, 'promised', 'opened', 'whole')
local promised, opened, whole = state[1], state[2], state[3] == '1'
redis.call('DEL', lease)
redis.call('HSET', lease, 'settled', 1)
redis.call('EXPIRE', lease, tombstone)
if not promised then
    return 0
end

redis.call('HINCRBY', usage, 'bytes', sent - tonumber(promised))
-- A window that began after this lease did is not its own.
if redis.call('HGET', content, 'opened') == opened then
    redis.call('HINCRBY', content, whole and 'delivered' or 'leases', -1)
    redis.call('HINCRBY', content, 'delivered', delivered)
    local left = redis.call('HMGET', content, 'leases', 'delivered')
    if tonumber(left[1] or '0') <= 0 and tonumber(left[2]) <= 0 then
        redis.call('DEL', content)
        redis.call('HINCRBY', usage, 'downloads', -1)
    elseif window > 0 then
        redis.call('EXPIRE', content, window)
    else
        redis.call('DEL', content)
    end
end
return 1
