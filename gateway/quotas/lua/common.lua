-- What every script begins with. Counts and times are integers; times are microseconds since 1970.
--
-- The state of a tenant in one epoch is a hash: run (of the server that the epoch was opened on), seq (events
-- appended), confirmed (events that the ledger has), clock (the latest time seen), ledger (whose epoch it is), forgotten
-- (see forget.lua), shift (added to the time; tests).
-- An account is a hash: c (counters, see below); tat:SECONDS (see the rate in reserve.lua); rSECONDS:BUCKET:d and :b (a
-- rolling window in buckets). It is loaded from the ledger when a limit bounds it, or somebody asks; from then on it is
-- charged.
-- What is read and written together is one text, which costs a fraction of as many members of a hash.
local SECOND = 1000000
local DAY = 86400 * SECOND
local BUCKETS = 60
-- Seconds after which an account is forgotten that nothing was charged to; it is loaded anew when it comes back.
local IDLE = 40 * 86400
local floor, max, format, match, call = math.floor, math.max, string.format, string.match, redis.call

-- Lua would write a large number as 1e+15.
local function text(number)
    return format('%d', number)
end

-- The state, if it is of this very run of the server: one that was restarted, or promoted, may have lost events. Either
-- gives it a new replication id.
-- Time never runs backwards: a clock that is set back must free nothing.
local function opened(key)
    local kept = call('HMGET', key, 'run', 'seq', 'confirmed', 'clock', 'shift')
    if not kept[1] or not string.find(call('INFO', 'replication'), 'master_replid:' .. kept[1], 1, true) then
        return nil
    end
    local time = call('TIME')
    local now = time[1] * SECOND + time[2] + (kept[5] or 0)
    return {
        key = key, seq = tonumber(kept[2]), confirmed = tonumber(kept[3]), now = max(now, tonumber(kept[4]))
    }
end

local function event_of(about, kind, downloads, bytes, at)
    return format('{%s,"k":"%s","d":%d,"b":%d,"at":%d}', about, kind, downloads, bytes, at)
end

-- Append an event for the ledger. The ids of the stream are dense, so that a position says what is before it.
local function append(state, events, event)
    state.seq = state.seq + 1
    call('XADD', events, format('%d-1', state.seq), 'e', event)
    call('HSET', state.key, 'seq', text(state.seq), 'clock', text(state.now))
end

-- The calendar month that a day (since 1970) lies in, in months since March of the year 0, and the first day of the
-- next one.
local function month_of(day)
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
    return month, era * 146097 + yoe * 365 + floor(yoe / 4) - floor(yoe / 100) + doy - 719468
end

-- Microseconds of a bucket of a rolling window.
local function width_of(window)
    return math.ceil(window * SECOND / BUCKETS)
end

-- The counters of an account: d, b (downloads and bytes in all, promises of running downloads included); day, dd, db and
-- month, md, mb (the latest day, the month that it lies in, and what was charged to them).
local function write_counters(key, have)
    call('HSET', key, 'c', format('%d %d %d %d %d %d %d %d',
        have.d, have.b, have.day, have.dd, have.db, have.month, have.md, have.mb))
end

-- An account without its rates; its rolling windows as they are, where somebody asks for them.
local function read_account(key, rolling)
    local account, counters = {}, nil
    if rolling then
        local flat = call('HGETALL', key)
        for field = 1, #flat, 2 do
            account[flat[field]] = flat[field + 1]
        end
        counters = account.c
    else
        counters = call('HGET', key, 'c')
    end
    if counters then
        local d, b, day, dd, db, month, md, mb = match(counters,
            '^(%-?%d+) (%-?%d+) (%d+) (%-?%d+) (%-?%d+) (%d+) (%-?%d+) (%-?%d+)$')
        account.d, account.b = tonumber(d), tonumber(b)
        account.day, account.dd, account.db = tonumber(day), tonumber(dd), tonumber(db)
        account.month, account.md, account.mb = tonumber(month), tonumber(md), tonumber(mb)
    end
    return account
end

-- Charge an account with what began at a time, if it is loaded. Have is what was read of it, if it was.
local function charge(key, have, downloads, bytes, at, windows)
    if downloads == 0 and bytes == 0 then
        return
    end
    have = have or read_account(key, false)
    if not have.d then
        return
    end
    have.d, have.b = have.d + downloads, have.b + bytes
    local day = floor(at / DAY)
    local month = have.month
    if day == have.day then
        have.dd, have.db = have.dd + downloads, have.db + bytes
    else
        month = month_of(day)
        if day > have.day then
            have.day, have.dd, have.db = day, downloads, bytes
        end
    end
    if month == have.month then
        have.md, have.mb = have.md + downloads, have.mb + bytes
    elseif month > have.month then
        have.month, have.md, have.mb = month, downloads, bytes
    end
    write_counters(key, have)
    for _, window in ipairs(windows) do
        local field = format('r%d:%d', window, floor(at / width_of(window)))
        call('HINCRBY', key, field .. ':d', text(downloads))
        call('HINCRBY', key, field .. ':b', text(bytes))
    end
end

-- A lease: promised, mark (bytes that may be sent so far), downloads and bytes charged, at, runs_out, whole (handed over,
-- 1 or 0), seq (of the grant), opener (the lease that was charged as the download), windows (rolling), about (members of
-- its events). Gives nil if there is none, and true besides if it has ended.
local function read_lease(key)
    local kept = call('GET', key)
    if not kept or kept == 'ended' then
        return nil, kept == 'ended'
    end
    local promised, mark, downloads, bytes, at, runs_out, whole, seq, opener, windows, about =
        match(kept, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d) (%d+) ([^;]*);([^;]*);(.*)$')
    return {
        promised = promised, mark = tonumber(mark), downloads = tonumber(downloads), bytes = tonumber(bytes),
        at = tonumber(at), runs_out = tonumber(runs_out), whole = whole == '1', seq = tonumber(seq), opener = opener,
        windows = windows, about = about
    }
end

local function write_lease(key, lease, ...)
    call('SET', key, format('%d %d %d %d %d %d %d %d %s;%s;%s', lease.promised, lease.mark, lease.downloads, lease.bytes,
        lease.at, lease.runs_out, lease.whole and 1 or 0, lease.seq, lease.opener, lease.windows, lease.about), ...)
end

-- A caller's content: at, leases (running), delivered (how many were), octets (charged), ends (when the window does),
-- whole (until when it may be handed over again at no charge), free (how often that was since it was charged), opener
-- (the lease that was charged as the download), windows and about of that lease.
local function read_content(key)
    local kept = call('GET', key)
    if not kept then
        return nil
    end
    local at, leases, delivered, octets, ends, whole, free, opener, windows, about =
        match(kept, '^(%d+) (%-?%d+) (%-?%d+) (%-?%d+) (%d+) (%d+) (%d+) ([^;]*);([^;]*);(.*)$')
    return {
        at = tonumber(at), leases = tonumber(leases), delivered = tonumber(delivered), octets = tonumber(octets),
        ends = tonumber(ends), whole = tonumber(whole), free = tonumber(free), opener = opener, windows = windows,
        about = about
    }
end

-- It is kept for some seconds, or for as long as one is running.
local function write_content(key, content, seconds)
    local kept = format('%d %d %d %d %d %d %d %s;%s;%s', content.at, content.leases, content.delivered, content.octets,
        content.ends, content.whole, content.free, content.opener, content.windows, content.about)
    if content.leases > 0 then
        call('SET', key, kept)
    else
        call('SET', key, kept, 'EX', seconds + 60)
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
