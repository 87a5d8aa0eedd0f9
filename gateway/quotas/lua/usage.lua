#!lua flags=no-writes
-- What accounts have used in all, today and this month.
--
-- KEYS  1 state  2, 3 … account and running of each account, as in reserve.lua
-- Gives {"used", now, …} with seven for each: downloads, bytes, running leases, downloads and bytes of the day, and of
-- the month; {"load", now, number of an account …}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local day = floor(state.now / DAY)
local month = month_of(day)
local answer, missing = {'used', state.now}, {'load', state.now}
local function add(...)
    for _, value in ipairs({...}) do
        answer[#answer + 1] = value
    end
end
for number = 1, (#KEYS - 1) / 2 do
    local have = read_account(KEYS[2 * number], false)
    if not have.d then
        missing[#missing + 1] = number
    else
        local today, this_month = have.day == day, have.month == month
        add(have.d, have.b, call('ZCOUNT', KEYS[2 * number + 1], '(' .. text(state.now), '+inf'))
        add(today and have.dd or 0, today and have.db or 0, this_month and have.md or 0, this_month and have.mb or 0)
    end
end
return #missing > 2 and missing or answer
