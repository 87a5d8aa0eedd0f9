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
    local lease = redis.call('HMGET', KEYS[number], 'd', 'b', 'at')
    if lease[1] then
        for _, value in ipairs(lease) do
            answer[#answer + 1] = value
        end
    end
end
return answer
