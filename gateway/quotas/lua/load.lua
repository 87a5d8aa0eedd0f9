#!lua
-- Have an account count what the ledger has, and what waits for it in the stream.
--
-- KEYS  1 state  2 events  3 account
-- ARGV  1 way       "load" it if it is missing, "compare" it, or "repair" it
--       2 name      of the account, as JSON text
--       3 forgotten  how often accounts had been by then, see forget.lua; -1 does not matter
--       4 position  in the stream, up to which the ledger has the events
--       5 day  6 month, that the numbers are for, as in common.lua
--       7 downloads  8 bytes in all;  9, 10 of the day;  11, 12 of the month
--       13 … rolling windows, four each: window in seconds, bucket, downloads, bytes
-- Gives {"loaded"}; for "compare" and "repair" {"equal"} or {"different", field, found, expected, …}, {"missing"} if it
-- is not there; {"late"}: the numbers are too old by now, ask the ledger again; {"behind"}: too much waits for it;
-- {"closed"}.
local MOST = 5000
local way, position, day, month = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local there = call('HEXISTS', KEYS[3], 'c') == 1
if way == 'load' and there then
    return {'loaded'}
elseif way ~= 'load' and not there then
    return {'missing'}
end
local today = floor(state.now / DAY)
local overtaken = ARGV[3] ~= '-1' and ARGV[3] ~= (call('HGET', KEYS[1], 'forgotten') or '0')
if overtaken or state.confirmed > position or today ~= day or month_of(today) ~= month then
    return {'late'}
end
local waiting = call('XRANGE', KEYS[2], text(position + 1), '+', 'COUNT', MOST + 1)
if #waiting > MOST then
    return {'behind'}
end

local expected = {
    d = tonumber(ARGV[7]), b = tonumber(ARGV[8]), day = day, dd = tonumber(ARGV[9]), db = tonumber(ARGV[10]),
    month = month, md = tonumber(ARGV[11]), mb = tonumber(ARGV[12])
}
local function add(field, amount)
    expected[field] = (expected[field] or 0) + amount
end
local function add_to_window(window, bucket, downloads, bytes)
    if bucket >= floor(state.now / width_of(window)) - BUCKETS then
        add('r' .. text(window) .. ':' .. text(bucket) .. ':d', downloads)
        add('r' .. text(window) .. ':' .. text(bucket) .. ':b', bytes)
    end
end
for first = 13, #ARGV, 4 do
    local window, bucket, downloads, bytes = unpack(ARGV, first, first + 3)
    add_to_window(tonumber(window), tonumber(bucket), tonumber(downloads), tonumber(bytes))
end
local name = cjson.decode('[' .. ARGV[2] .. ']')[1]
for _, entry in ipairs(waiting) do
    local body = entry[2][2]
    if string.find(body, ARGV[2], 1, true) then
        local event = cjson.decode(body)
        for _, account in ipairs(event.u) do
            if account == name then
                local began = floor(event.at / DAY)
                add('d', event.d)
                add('b', event.b)
                if began == day then
                    add('dd', event.d)
                    add('db', event.b)
                end
                if month_of(began) == month then
                    add('md', event.d)
                    add('mb', event.b)
                end
                for _, window in ipairs(event.w) do
                    add_to_window(window, floor(event.at / width_of(window)), event.d, event.b)
                end
            end
        end
    end
end

local different = {}
if there then
    local found = read_account(KEYS[3], true)
    -- A day or month in which nothing was charged yet is not begun in the account.
    if found.day ~= day then
        found.day, found.dd, found.db = day, 0, 0
    end
    if found.month ~= month then
        found.month, found.md, found.mb = month, 0, 0
    end
    for field, value in pairs(expected) do
        if tonumber(found[field] or 0) ~= value then
            different[#different + 1] = field
            different[#different + 1] = text(found[field] or 0)
            different[#different + 1] = text(value)
        end
    end
    if #different == 0 then
        return {'equal'}
    end
end
if way ~= 'compare' then
    write_counters(KEYS[3], expected)
    for field, value in pairs(expected) do
        if string.sub(field, 1, 1) == 'r' then
            call('HSET', KEYS[3], field, text(value))
        end
    end
end
if way == 'load' then
    -- Whoever is only asked about is forgotten again.
    call('EXPIRE', KEYS[3], IDLE)
end
return there and {'different', unpack(different)} or {'loaded'}
