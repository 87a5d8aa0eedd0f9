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
-- ledger has it; {"nothing", confirmed} when there was nothing to end; {"running"} when it has not run out; {"closed"}.
local id, expire = ARGV[1], ARGV[2] == 'expire'
local sent, delivered, window = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local now = state.now
local lease = read_lease(KEYS[3])
if not lease then
    if not expire then
        call('SET', KEYS[3], 'ended', 'EX', ARGV[6])
    end
    return {'nothing', state.confirmed}
end
if expire then
    if lease.whole or lease.runs_out > now then
        return {'running'}
    end
    sent, delivered = lease.mark, 1
end
call('SET', KEYS[3], 'ended', 'EX', ARGV[6])

local content = window > 0 and read_content(KEYS[4])
if content and content.opener ~= lease.opener then
    -- A download that was counted after this lease began is not its own.
    content = nil
end
if content and lease.whole and lease.bytes > 0 and content.free > 0 and delivered == 0 then
    -- Since it was charged, the same was handed over for nothing.
    sent, delivered = lease.bytes, 1
end

local answer = {'ended', state.confirmed}
local function tell(number, event)
    answer[#answer + 1] = number
    answer[#answer + 1] = event
end
if lease.seq > state.confirmed then
    -- Who ends it may never have heard that it was granted: a lost answer, or a process that died.
    tell(lease.seq, event_of(lease.about, 'grant', lease.downloads, lease.bytes, lease.at))
end
local function change(members, kind, downloads, bytes, at, counters, windows)
    local event = event_of(members, kind, downloads, bytes, at)
    append(state, KEYS[2], event)
    tell(state.seq, event)
    for _, counter in ipairs(counters) do
        charge(counter, nil, downloads, bytes, at, windows)
    end
end

-- Give a download back to those whom it was charged to: limits, and so accounts, may have been others then.
local function release(about, at, windows)
    local counters = {}
    for number, account in ipairs(cjson.decode('{' .. about .. '}').u) do
        counters[number] = string.gsub(KEYS[1], 'state$', '') .. 'account:' .. account
    end
    change(about, 'release', -1, 0, at, counters, numbers(windows))
end

local own = {}
for account = 5, #KEYS, 2 do
    own[#own + 1] = KEYS[account]
end
change(lease.about, 'end', 0, sent - lease.bytes, lease.at, own, numbers(lease.windows))
if not lease.whole then
    for running = 6, #KEYS, 2 do
        call('ZREM', KEYS[running], id)
    end
end

if window == 0 then
    if delivered == 0 then
        release(lease.about, lease.at, lease.windows)
    end
elseif content then
    content.leases = content.leases - (lease.whole and 0 or 1)
    content.delivered = content.delivered + delivered - (lease.whole and 1 or 0)
    content.octets = content.octets + sent - lease.bytes
    if content.leases <= 0 and content.delivered <= 0 then
        call('DEL', KEYS[4])
        release(content.about, content.at, content.windows)
        return answer
    end
    if lease.whole and lease.bytes > 0 and delivered == 0 then
        content.whole = 0
    end
    if content.leases <= 0 then
        content.ends = now + window * SECOND
    end
    write_content(KEYS[4], content, window)
end
return answer
