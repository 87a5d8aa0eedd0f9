#!lua
-- Reserve one download, all or nothing over all limits. Asked again with the same lease it answers again and charges
-- nothing.
--
-- KEYS  1 state, 2 events (stream for the ledger), 3 lease (of this reservation), 4 content (of this caller): see
--       common.lua
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
-- Gives {"granted", now, seq, confirmed, event, downloads, bytes, at, opener, …}, where event is "" if nothing is charged;
-- or {"refused", now, …} or, when nothing is to change, {"possible", now, downloads, bytes, …}, whether it would be
-- refused or not; with three values for each limit: 0 within, 1 refused, 2 slow down; used; reset (microseconds from now,
-- -1 never). Else what is to be done first: {"closed"}; {"behind"} (the ledger); {"load", now, number of an account …};
-- {"ended"}: it was given up.
local id, promised, mark, size = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local window_seconds, ttl = tonumber(ARGV[5]), ARGV[6] * SECOND
local window, windows = window_seconds * SECOND, numbers(ARGV[9])
local dry = string.sub(ARGV[10], 1, 1) == '?'
local whole = string.sub(ARGV[10], -5) == 'whole'

local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local now = state.now
local again, ended = read_lease(KEYS[3])
if ended then
    return {'ended'}
end
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
local downloads, bytes = 1, promised
local content, merged = nil, false
if again then
    downloads, bytes = again.downloads, again.bytes
elseif window > 0 then
    content = read_content(KEYS[4])
    if content and whole and now < content.whole then
        merged, bytes = true, 0
    elseif content and (content.leases > 0 or now < content.ends) then
        merged = size < 0 or content.octets + promised <= 2 * size
    end
    downloads = merged and 0 or 1
end
-- What is charged already costs nothing more.
local more = {d = again and 0 or downloads, b = again and 0 or bytes}

-- Where the caller stands.
local day = floor(now / DAY)

local function used_in_window(account, metric, period)
    local width = width_of(period)
    local bucket, sum = floor(now / width), 0
    for back = 0, BUCKETS do
        sum = sum + (account[format('r%d:%d:%s', period, bucket - back, metric)] or 0)
    end
    return sum
end

-- Until enough has left a rolling window.
local function until_left(account, metric, period, surplus)
    local width = width_of(period)
    local bucket = floor(now / width)
    for back = BUCKETS, 0, -1 do
        surplus = surplus - (account[format('r%d:%d:%s', period, bucket - back, metric)] or 0)
        if surplus <= 0 then
            return (bucket - back + BUCKETS + 1) * width - now
        end
    end
    return -1
end

local function counted(account, metric, period)
    if period == 'total' then
        return account[metric], -1
    elseif period == 'day' then
        return account.day == day and account['d' .. metric] or 0, (day + 1) * DAY - now
    elseif period == 'month' then
        local month, next_month = month_of(day)
        return account.month == month and account['m' .. metric] or 0, next_month * DAY - now
    end
    return used_in_window(account, metric, tonumber(period)), period * SECOND
end

-- Whether a limit is passed, what is used, when that changes, and what is added. Nothing is added to what may be as large
-- as a limit: the sum might not be exact.
local function measure_sum(metric, account, period, value)
    local used, reset = counted(account, metric, period)
    local cost = more[metric]
    local over = value == 0 or (cost > 0 and used > value - cost)
    if over and (value == 0 or cost > value) then
        reset = -1
    elseif over and tonumber(period) then
        reset = until_left(account, metric, tonumber(period), used - (value - cost))
    end
    return over, used, reset, cost
end

local measures = {}

function measures.downloads(account, _, _, period, value)
    return measure_sum('d', account, period, value)
end

function measures.bytes(account, _, _, period, value)
    return measure_sum('b', account, period, value)
end

function measures.concurrent(_, _, running, _, value)
    local used = call('ZCOUNT', running, '(' .. text(now), '+inf')
    if value == 0 or (used >= value and not whole) then
        local first = value > 0
            and call('ZRANGE', running, '(' .. text(now), '+inf', 'BYSCORE', 'LIMIT', used - value, 1, 'WITHSCORES')
        return true, used, first and tonumber(first[2]) - now or -1, 1
    end
    return false, used, -1, whole and 0 or 1
end

-- Generic cell rate algorithm: tat is when all that was let in would have come at the steady rate.
function measures.rate(_, key, _, period, value, burst)
    if value == 0 then
        return true, 0, -1, 1
    end
    local interval = max(floor(period * SECOND / value), 1)
    local tat = math.min(max(tonumber(call('HGET', key, 'tat:' .. period) or '0'), now), now + burst * interval)
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
    local event = event_of(again.about, 'grant', downloads, bytes, again.at)
    return answer('granted', now, again.seq, state.confirmed, event, downloads, bytes, again.at, again.opener)
end

-- Grant it.
for _, tat in ipairs(tats) do
    call('HSET', unpack(tat))
end
if window > 0 then
    if not merged then
        content = {at = now, leases = 0, delivered = 0, octets = 0, whole = content and content.whole or 0, free = 0,
            opener = id, windows = ARGV[9], about = ARGV[8]}
    end
    content.octets, content.ends = content.octets + bytes, now + window
    if not whole then
        content.leases = content.leases + 1
    else
        content.delivered = content.delivered + 1
        if bytes > 0 then
            content.whole, content.free = now + window, 0
        else
            content.free = content.free + 1
        end
    end
    write_content(KEYS[4], content, window_seconds)
end
if whole and downloads == 0 and bytes == 0 then
    -- Nothing is charged, so that there is nothing for the ledger, nor to be given back.
    return answer('granted', now, 0, state.confirmed, '', 0, 0, now, content.opener)
end

local event = event_of(ARGV[8], 'grant', downloads, bytes, now)
append(state, KEYS[2], event)
for number, account in ipairs(accounts) do
    local key, running = KEYS[3 + 2 * number], KEYS[4 + 2 * number]
    for _, period in ipairs(windows) do
        local bucket = floor(now / width_of(period))
        if not account[format('r%d:%d:d', period, bucket)] then
            for field in pairs(account) do
                local old = match(field, '^r' .. text(period) .. ':(%d+):')
                if old and tonumber(old) < bucket - BUCKETS then
                    call('HDEL', key, field)
                end
            end
        end
    end
    local is_new_day = account.d and account.day ~= day
    charge(key, account, downloads, bytes, now, windows)
    if is_new_day then
        call('EXPIRE', key, IDLE)
    end
    if not whole then
        call('ZADD', running, text(now + ttl), id)
    end
end

local lease = {
    promised = promised, mark = mark, downloads = downloads, bytes = bytes, at = now, runs_out = now + ttl, whole = whole,
    seq = state.seq, opener = content and content.opener or id, windows = ARGV[9], about = ARGV[8]
}
if whole then
    -- It can only be given back by whoever asked for it and never heard the answer.
    write_lease(KEYS[3], lease, 'EX', 600)
else
    write_lease(KEYS[3], lease)
end
return answer('granted', now, state.seq, state.confirmed, event, downloads, bytes, now, lease.opener)
