#!lua
-- Reserve one download, all or nothing over all limits. Asked again with the same lease it answers again and charges
-- nothing.
--
-- KEYS  1 state    see common.lua
--       2 events   stream for the ledger
--       3 lease    hash of this reservation: p promised, m mark (bytes that may be sent so far), b charged, at, x (when
--                  it runs out), o (the lease that was charged as the download), w (handed over whole), n (rolling
--                  windows), a (members of its events), s (seq of the grant); or ended
--       4 content  hash of this caller and content: opened (the lease that was charged as the download), at, leases
--                  (running), delivered (how many were), octets (charged), until (when the window ends), whole (until
--                  when it may be handed over again), about and windows (a and n of the lease that was charged)
--       5, 6 …     account and running (sorted set of leases by when they run out) of each account
-- ARGV  1 id        of the lease
--       2 promised  bytes that this answer will hold
--       3 mark      bytes that may be sent before the first heartbeat
--       4 size      of the whole file; -1 unknown
--       5 window    seconds in which the same content counts as one download; 0 merges nothing
--       6 ttl       seconds to the first heartbeat
--       7 most      events that may wait for the ledger
--       8 about     JSON members for the events: r (id), u (accounts), c (content), w (rolling windows)
--       9 windows   rolling windows in seconds, with spaces between
--       10 way      "stream"; "whole": handed over, so that nothing is running and all of it counts as sent; with
--                   "?" before it nothing is changed
--       11 …        limits, six each: account (number), metric, period, value, burst, soft (0, 1)
-- Gives {"granted", now, seq, confirmed, event, downloads, bytes, at, opened, …} or {"refused", now, …} or, when nothing
-- is to change, {"possible", now, downloads, bytes, …}, whether it would be refused or not; with three values for each limit: 0 within, 1 refused, 2 slow down; used; reset
-- (microseconds from now, -1 never). Else what is to be done first: {"closed"}; {"behind"} (the ledger); {"load", now,
-- number of an account …}; {"ended"}: it was given up.
local id, promised, mark, size = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local window, ttl = tonumber(ARGV[5]) * SECOND, tonumber(ARGV[6]) * SECOND
local windows = numbers(ARGV[9])
local dry = string.sub(ARGV[10], 1, 1) == '?'
local whole = string.sub(ARGV[10], -5) == 'whole'

local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local now = state.now
local lease = redis.call('HMGET', KEYS[3], 'ended', 's', 'a', 'd', 'b', 'at', 'o')
if lease[1] then
    return {'ended'}
end
local again = lease[2]
if not again and not dry and state.seq - state.confirmed >= tonumber(ARGV[7]) then
    return {'behind'}
end

-- An account that nothing limits needs not be loaded; if it is, it is charged, so that it stays right.
local counts = {}
for first = 11, #ARGV, 6 do
    if ARGV[first + 1] ~= 'concurrent' then
        counts[tonumber(ARGV[first])] = true
    end
end
local accounts, missing = {}, {'load', now}
for number = 1, (#KEYS - 4) / 2 do
    accounts[number] = read_account(KEYS[3 + 2 * number], #windows > 0)
    if counts[number] and not accounts[number].d then
        missing[#missing + 1] = number
    end
end
if #missing > 2 then
    return missing
end

-- What it costs.
local downloads, bytes, merged = 1, promised, false
local content = {}
if again then
    downloads, bytes = tonumber(lease[4]), tonumber(lease[5])
elseif window > 0 then
    content = redis.call('HMGET', KEYS[4], 'opened', 'at', 'leases', 'delivered', 'octets', 'until', 'whole')
    if whole and now < tonumber(content[7] or '0') then
        merged, bytes = true, 0
    elseif content[1] and (tonumber(content[3]) > 0 or now < tonumber(content[6])) then
        merged = size < 0 or tonumber(content[5]) + promised <= 2 * size
    end
    downloads = merged and 0 or 1
end
-- What is charged already costs nothing more.
local more_downloads, more_bytes = again and 0 or downloads, again and 0 or bytes

-- Where the caller stands.
local day = floor(now / DAY)
local month, next_month = month_of(day)

local function used_in_window(account, metric, period)
    local width = width_of(period)
    local bucket, sum = floor(now / width), 0
    for back = 0, BUCKETS do
        sum = sum + tonumber(account['r' .. text(period) .. ':' .. text(bucket - back) .. ':' .. metric] or '0')
    end
    return sum
end

-- Until enough has left a rolling window.
local function until_left(account, metric, period, surplus)
    local width = width_of(period)
    local bucket = floor(now / width)
    for back = BUCKETS, 0, -1 do
        surplus = surplus - tonumber(account['r' .. text(period) .. ':' .. text(bucket - back) .. ':' .. metric] or '0')
        if surplus <= 0 then
            return (bucket - back + BUCKETS + 1) * width - now
        end
    end
    return -1
end

local function counted(account, metric, period)
    if period == 'total' then
        return tonumber(account[metric]), -1
    elseif period == 'day' then
        return tonumber(account.day) == day and tonumber(account['d' .. metric]) or 0, (day + 1) * DAY - now
    elseif period == 'month' then
        return tonumber(account.month) == month and tonumber(account['m' .. metric]) or 0, next_month * DAY - now
    end
    return used_in_window(account, metric, tonumber(period)), tonumber(period) * SECOND
end

-- Whether a limit is passed, what is used, and when that changes. Nothing is added to what may be as large as a limit:
-- the sum might not be exact.
local measures = {}

function measures.downloads(account, _, _, period, value)
    local used, reset = counted(account, 'd', period)
    local over = value == 0 or (more_downloads > 0 and used > value - more_downloads)
    if over and (value == 0 or more_downloads > value) then
        reset = -1
    elseif over and tonumber(period) then
        reset = until_left(account, 'd', tonumber(period), used - (value - more_downloads))
    end
    return over, used, reset, more_downloads
end

function measures.bytes(account, _, _, period, value)
    local used, reset = counted(account, 'b', period)
    local over = value == 0 or (more_bytes > 0 and used > value - more_bytes)
    if over and (value == 0 or more_bytes > value) then
        reset = -1
    elseif over and tonumber(period) then
        reset = until_left(account, 'b', tonumber(period), used - (value - more_bytes))
    end
    return over, used, reset, more_bytes
end

function measures.concurrent(_, _, running, _, value)
    local used = redis.call('ZCOUNT', running, '(' .. text(now), '+inf')
    if value == 0 or (used >= value and not whole) then
        local first = value > 0
            and redis.call('ZRANGE', running, '(' .. text(now), '+inf', 'BYSCORE', 'LIMIT', used - value, 1, 'WITHSCORES')
        return true, used, first and tonumber(first[2]) - now or -1, 1
    end
    return false, used, -1, whole and 0 or 1
end

-- Generic cell rate algorithm: tat is when all that was let in would have come at the steady rate.
function measures.rate(_, key, _, period, value, burst)
    if value == 0 then
        return true, 0, -1, 1
    end
    local interval = max(floor(tonumber(period) * SECOND / value), 1)
    local tat = math.min(max(tonumber(redis.call('HGET', key, 'tat:' .. period) or '0'), now), now + burst * interval)
    local used = math.ceil((tat - now) / interval)
    local wait = tat + interval - burst * interval - now
    if wait > 0 then
        return true, used, wait, 1
    end
    return false, used, tat + interval - now, 1, tat + interval
end

local refused, standings, tats = false, {}, {}
for first = 11, #ARGV, 6 do
    local number, metric, period = tonumber(ARGV[first]), ARGV[first + 1], ARGV[first + 2]
    local value, burst, soft = tonumber(ARGV[first + 3]), tonumber(ARGV[first + 4]), ARGV[first + 5] == '1'
    local key, running = KEYS[3 + 2 * number], KEYS[4 + 2 * number]
    local over, used, reset, cost, tat = measures[metric](accounts[number], key, running, period, value, burst)
    if again then
        over, cost = false, 0
    end
    refused = refused or (over and not soft)
    standings[#standings + 1] = {over, soft, used, reset, cost}
    if tat then
        tats[#tats + 1] = {key, 'tat:' .. period, text(tat)}
    end
end

local function answer(...)
    local values = {...}
    for _, standing in ipairs(standings) do
        local over, soft, used, reset, cost = unpack(standing)
        values[#values + 1] = over and (soft and 2 or 1) or 0
        values[#values + 1] = used + ((refused or dry) and 0 or cost)
        values[#values + 1] = reset
    end
    return values
end

if dry then
    return answer('possible', now, downloads, bytes)
elseif refused then
    return answer('refused', now)
elseif again then
    local event = '{' .. lease[3] .. ',"k":"grant","d":' .. lease[4] .. ',"b":' .. lease[5] .. ',"at":' .. lease[6] .. '}'
    local at = tonumber(lease[6])
    return answer('granted', now, tonumber(again), state.confirmed, event, downloads, bytes, at, lease[7])
end

-- Grant it.
local event = append(state, KEYS[2], ARGV[8], 'grant', downloads, bytes, now)
for number, account in ipairs(accounts) do
    local key, running = KEYS[3 + 2 * number], KEYS[4 + 2 * number]
    for _, period in ipairs(windows) do
        local bucket = floor(now / width_of(period))
        if not account['r' .. text(period) .. ':' .. text(bucket) .. ':d'] then
            for field in pairs(account) do
                local old = string.match(field, '^r' .. text(period) .. ':(%d+):')
                if old and tonumber(old) < bucket - BUCKETS then
                    redis.call('HDEL', key, field)
                end
            end
        end
    end
    charge(key, account, downloads, bytes, now, windows)
    if account.d and tonumber(account.day) ~= day then
        redis.call('EXPIRE', key, IDLE)
    end
    if not whole then
        redis.call('ZADD', running, text(now + ttl), id)
    end
end
for _, tat in ipairs(tats) do
    redis.call('HSET', unpack(tat))
end

local opener = merged and content[1] or id
if window > 0 then
    local leases, delivered = whole and 0 or 1, whole and 1 or 0
    if merged then
        leases = leases + tonumber(content[3])
        redis.call('HINCRBY', KEYS[4], 'octets', text(bytes))
        redis.call('HINCRBY', KEYS[4], 'delivered', delivered)
        redis.call('HSET', KEYS[4], 'leases', leases, 'until', text(now + window))
    else
        redis.call('HSET', KEYS[4], 'opened', id, 'at', text(now), 'leases', leases, 'delivered', delivered,
            'octets', text(bytes), 'until', text(now + window), 'about', ARGV[8], 'windows', ARGV[9])
    end
    if whole and bytes > 0 then
        redis.call('HSET', KEYS[4], 'whole', text(now + window))
    end
    if leases == 0 then
        redis.call('EXPIRE', KEYS[4], ARGV[5] + 60)
    elseif content[1] then
        redis.call('PERSIST', KEYS[4])
    end
end
redis.call('HSET', KEYS[3], 'p', text(promised), 'm', text(mark), 'd', downloads, 'b', text(bytes), 'at', text(now),
    'x', text(now + ttl), 'o', opener, 'w', whole and 1 or 0, 'n', ARGV[9], 'a', ARGV[8], 's', text(state.seq))
if whole then
    -- It can only be given back by whoever asked for it and never heard the answer.
    redis.call('EXPIRE', KEYS[3], 600)
end
return answer('granted', now, state.seq, state.confirmed, event, downloads, bytes, now, opener)
