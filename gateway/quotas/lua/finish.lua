#!lua flags=allow-oom
-- End a lease: charge what was sent, give back what was not. A second call changes nothing.
--
-- KEYS  as in reserve.lua
-- ARGV  1 id         of the lease
--       2 way        "settle"; or "expire", which does nothing before the lease has run out, and charges all that might
--                    have been sent
--       3 sent       bytes of the representation that left (settle)
--       4 delivered  1 if any byte left or the answer was whole, else 0: then the download itself is given back,
--                    unless another of the same content is running or was delivered (settle)
--       5 window     seconds, as in reserve.lua, from now on
--       6 remember   seconds for which a reservation that arrives late is refused
-- Gives {"ended", confirmed, seq, event, …} with each event that it appended, and before them the grant unless the
-- ledger has it; {"nothing", confirmed} when there was
-- nothing to end; {"running"} when it has not run out; {"closed"}.
local id, expire = ARGV[1], ARGV[2] == 'expire'
local sent, delivered, window = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]) * SECOND

local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local now = state.now
local lease = redis.call('HMGET', KEYS[3], 'p', 'm', 'b', 'at', 'x', 'o', 'w', 'n', 'a', 's', 'd')
if not lease[1] then
    if not expire then
        redis.call('HSET', KEYS[3], 'ended', 1)
        redis.call('EXPIRE', KEYS[3], ARGV[6])
    end
    return {'nothing', state.confirmed}
end
local at, opener, whole, windows, about = tonumber(lease[4]), lease[6], lease[7] == '1', numbers(lease[8]), lease[9]
if expire then
    if whole or tonumber(lease[5]) > now then
        return {'running'}
    end
    sent, delivered = tonumber(lease[2]), 1
end
redis.call('DEL', KEYS[3])
redis.call('HSET', KEYS[3], 'ended', 1)
redis.call('EXPIRE', KEYS[3], ARGV[6])

local answer = {'ended', state.confirmed}
local function tell(number, event)
    answer[#answer + 1] = number
    answer[#answer + 1] = event
end
if tonumber(lease[10]) > state.confirmed then
    -- Who ends it may never have heard that it was granted: a lost answer, or a process that died.
    tell(tonumber(lease[10]), '{' .. about .. ',"k":"grant","d":' .. lease[11] .. ',"b":' .. lease[3] .. ',"at":' .. lease[4] .. '}')
end
local function change(members, kind, downloads, bytes, since, counters, counted)
    local event = append(state, KEYS[2], members, kind, downloads, bytes, since)
    tell(state.seq, event)
    for _, counter in ipairs(counters) do
        charge(counter, nil, downloads, bytes, since, counted)
    end
end

-- Give a download back to those whom it was charged to: limits, and so accounts, may have been others then.
local function release(members, since, counted)
    local counters = {}
    for number, account in ipairs(cjson.decode('{' .. members .. '}').u) do
        counters[number] = string.gsub(KEYS[1], 'state$', '') .. 'account:' .. account
    end
    change(members, 'release', -1, 0, since, counters, numbers(counted))
end

local own = {}
for account = 5, #KEYS, 2 do
    own[#own + 1] = KEYS[account]
end
change(about, 'end', 0, sent - tonumber(lease[3]), at, own, windows)
for running = 6, #KEYS, 2 do
    redis.call('ZREM', KEYS[running], id)
end

if window == 0 then
    if delivered == 0 then
        release(about, at, lease[8])
    end
    return answer
end
local content = redis.call('HMGET', KEYS[4], 'opened', 'at', 'leases', 'delivered', 'about', 'windows')
-- A download that was counted after this lease began is not its own.
if content[1] == opener then
    local leases = tonumber(content[3]) - (whole and 0 or 1)
    delivered = tonumber(content[4]) + delivered - (whole and 1 or 0)
    if leases <= 0 and delivered <= 0 then
        redis.call('DEL', KEYS[4])
        release(content[5], tonumber(content[2]), content[6])
        return answer
    end
    redis.call('HSET', KEYS[4], 'leases', leases, 'delivered', delivered)
    redis.call('HINCRBY', KEYS[4], 'octets', text(sent - tonumber(lease[3])))
    if whole and tonumber(lease[3]) > 0 then
        redis.call('HDEL', KEYS[4], 'whole')
    end
    if leases <= 0 then
        redis.call('HSET', KEYS[4], 'until', text(now + window))
        redis.call('EXPIRE', KEYS[4], ARGV[5] + 60)
    end
end
return answer
