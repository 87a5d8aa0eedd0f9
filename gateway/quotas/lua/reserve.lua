#!lua
-- Reserve one download, all or nothing. Asked again with the same lease it answers again and charges nothing.
--
-- KEYS  1 usage    hash of the caller: downloads, bytes (what running downloads promised included)
--       2 lease    hash of this reservation: promised, opened (as content had it), whole; or settled, when it is over
--       3 content  hash of this caller and content: opened (the lease that was charged as download), leases (running),
--                  delivered (how many were); gone when the window is over
-- ARGV  1 max_downloads  2 max_bytes  (-1 unlimited, 0 forbidden)
--       3 promised  bytes that this answer will hold
--       4 window    seconds in which the same content counts as one download; 0 merges nothing
--       5 ttl       seconds that a lease is remembered
--       6 whole     1 if it counts as delivered at once: it is settled only to give all of it back
-- Gives {1, downloads, bytes} when granted, {0, reason, downloads, bytes} when refused; nothing changes when refused.
local usage, lease, content = KEYS[1], KEYS[2], KEYS[3]
local max_downloads, max_bytes = tonumber(ARGV[1]), tonumber(ARGV[2])
local promised, window, ttl = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local whole = ARGV[6] == '1'

local used = redis.call('HMGET', usage, 'downloads', 'bytes')
local downloads, bytes = tonumber(used[1] or '0'), tonumber(used[2] or '0')

local state = redis.call('HMGET', lease, 'promised', 'settled')
if state[2] then
    -- The caller gave up waiting and released before this arrived.
    return {0, 'settled', downloads, bytes}
elseif state[1] then
    return {1, downloads, bytes}
end

local merged = window > 0 and redis.call('EXISTS', content) == 1
if max_downloads == 0 or (max_downloads > 0 and not merged and downloads >= max_downloads) then
    return {0, 'downloads', downloads, bytes}
end
if max_bytes >= 0 and bytes + promised > max_bytes then
    return {0, 'bytes', downloads, bytes}
end

if not merged then
    downloads = redis.call('HINCRBY', usage, 'downloads', 1)
    redis.call('HSET', content, 'opened', lease)
end
bytes = redis.call('HINCRBY', usage, 'bytes', promised)
redis.call('HSET', lease, 'promised', promised, 'opened', redis.call('HGET', content, 'opened'), 'whole', ARGV[6])
redis.call('EXPIRE', lease, ttl)
redis.call('HINCRBY', content, whole and 'delivered' or 'leases', 1)
if whole or not merged then
    redis.call('EXPIRE', content, window > 0 and window or ttl)
end
return {1, downloads, bytes}
