-- What every script begins with. Counts and times are integers; times are microseconds since 1970.
--
-- The state of a tenant in one epoch is a hash: run (of the server that the epoch was opened on), seq (events
-- appended), confirmed (events that the ledger has), clock (the latest time seen), ledger (whose epoch it is), forgotten (see forget.lua), shift (added
-- to the time; tests).
-- An account is a hash: d, b (downloads and bytes in all, promises of running downloads included); day, dd, db and
-- month, md, mb (the latest day and month, and what was charged to them); tat:SECONDS (see the rate in reserve.lua);
-- rSECONDS:BUCKET:d and :b (a rolling window in buckets). It is loaded from the ledger when a limit bounds it, or somebody
-- asks; from then on it is charged.
local SECOND = 1000000
local DAY = 86400 * SECOND
local BUCKETS = 60
-- Seconds after which an account is forgotten that nothing was charged to; it is loaded anew when it comes back.
local IDLE = 40 * 86400
local floor, max = math.floor, math.max

-- Lua would write a large number as 1e+15.
local function text(number)
    return string.format('%.0f', number)
end

-- The state, if it is of this very run of the server: one that was restarted, or promoted, may have lost events. Either
-- gives it a new replication id.
-- Time never runs backwards: a clock that is set back must free nothing.
local function opened(key)
    local kept = redis.call('HMGET', key, 'run', 'seq', 'confirmed', 'clock', 'shift')
    if not kept[1] or not string.find(redis.call('INFO', 'replication'), 'master_replid:' .. kept[1], 1, true) then
        return nil
    end
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * SECOND + tonumber(time[2]) + tonumber(kept[5] or '0')
    return {
        key = key, seq = tonumber(kept[2]), confirmed = tonumber(kept[3]), now = max(now, tonumber(kept[4]))
    }
end

-- Append an event for the ledger. The ids of the stream are dense, so that a position says what is before it.
local function append(state, events, about, kind, downloads, bytes, at)
    local event = '{' .. about .. ',"k":"' .. kind .. '","d":' .. text(downloads) .. ',"b":' .. text(bytes)
        .. ',"at":' .. text(at) .. '}'
    state.seq = state.seq + 1
    redis.call('XADD', events, text(state.seq) .. '-1', 'e', event)
    redis.call('HSET', state.key, 'seq', text(state.seq), 'clock', text(state.now))
    return event
end

-- The calendar month that a day (since 1970) lies in, in months since March of the year 0, and the first day of the
-- next one.
local months = {}
local function month_of(day)
    if months[day] then
        return unpack(months[day])
    end
    local shifted = day + 719468
    local era = floor(shifted / 146097)
    local doe = shifted - era * 146097
    local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
    local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
    local month = (era * 400 + yoe) * 12 + floor((5 * doy + 2) / 153)
    local year = floor((month + 1) / 12)
    era = floor(year / 400)
    yoe = year - era * 400
    doy = floor((153 * ((month + 1) % 12) + 2) / 5)
    months[day] = {month, era * 146097 + yoe * 365 + floor(yoe / 4) - floor(yoe / 100) + doy - 719468}
    return unpack(months[day])
end

-- Microseconds of a bucket of a rolling window.
local function width_of(window)
    return math.ceil(window * SECOND / BUCKETS)
end

-- The hash of an account, without its rates; without its rolling windows, too, where nobody asks for them.
local FIELDS = {'d', 'b', 'day', 'dd', 'db', 'month', 'md', 'mb'}
local function read_account(key, rolling)
    local account = {}
    if rolling then
        local flat = redis.call('HGETALL', key)
        for field = 1, #flat, 2 do
            account[flat[field]] = flat[field + 1]
        end
    else
        local values = redis.call('HMGET', key, unpack(FIELDS))
        for number, field in ipairs(FIELDS) do
            account[field] = values[number] or nil
        end
    end
    return account
end

-- Charge an account with what began at a time, if it is loaded. Have is its hash, if it was read before.
local function charge(key, have, downloads, bytes, at, windows)
    if downloads == 0 and bytes == 0 then
        return
    end
    have = have or read_account(key, false)
    if not have.d then
        return
    end
    local function plus(field, amount)
        return text(tonumber(have[field]) + amount)
    end
    local changed = {'d', plus('d', downloads), 'b', plus('b', bytes)}
    local function of_period(name, number, count, sum)
        if number == tonumber(have[name]) then
            changed[#changed + 1], changed[#changed + 2] = count, plus(count, downloads)
            changed[#changed + 1], changed[#changed + 2] = sum, plus(sum, bytes)
        elseif number > tonumber(have[name]) then
            changed[#changed + 1], changed[#changed + 2] = name, text(number)
            changed[#changed + 1], changed[#changed + 2] = count, text(downloads)
            changed[#changed + 1], changed[#changed + 2] = sum, text(bytes)
        end
    end
    local day = floor(at / DAY)
    of_period('day', day, 'dd', 'db')
    local month = month_of(day)
    of_period('month', month, 'md', 'mb')
    redis.call('HSET', key, unpack(changed))
    for _, window in ipairs(windows) do
        local field = 'r' .. text(window) .. ':' .. text(floor(at / width_of(window)))
        redis.call('HINCRBY', key, field .. ':d', text(downloads))
        redis.call('HINCRBY', key, field .. ':b', text(bytes))
    end
end

-- The numbers in a text like "3600 86400".
local function numbers(list)
    local found = {}
    for number in string.gmatch(list, '%d+') do
        found[#found + 1] = tonumber(number)
    end
    return found
end
