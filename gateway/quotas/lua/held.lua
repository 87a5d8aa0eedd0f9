#!lua
-- What running leases were charged.
--
-- KEYS  1 state  2 … leases, as in reserve.lua
-- Gives {"held", downloads, bytes, at, …} with three for each lease that is not ended; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local answer = {'held'}
for number = 2, #KEYS do
    local lease = read_lease(KEYS[number])
    if lease then
        answer[#answer + 1] = lease.downloads
        answer[#answer + 1] = lease.bytes
        answer[#answer + 1] = lease.at
    end
end
return answer
