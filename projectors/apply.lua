-- Apply one batch's effects to one shard, if its watermarks are the expected ones; else change nothing.
-- It only compares and sets: what a difference means is decided in Python (projectors/apply.py).
--
-- KEYS[1] header of the shard; KEYS[2] the set of what is owed to the view topic, written only where the header says that the shard is
--         published; then the keys that the effects touch, in the order in which the effects name them
-- ARGV[1] build expected; ARGV[2] marker (code of the column that every profile has); ARGV[3] number of watermarks n;
--         then n times: field, expected, new; last: the effects as MessagePack
--   effects = { counts = { {code, "delta", "delta", …}, … }, zeros = {code, …}, columns = {code, …},
--               profiles = { {code, fragment, …} or {} for a deleted one, … }, claims = { {id, "ts_ms:offset"} or {id}, … },
--               rows = { {field, value, …} or {} for none, … } }: what a repair puts in place of whatever is there, of any type
-- Returns 1 when applied, else what is stored: build, then the n watermarks (nil: absent).
-- Redis does not roll back. So all that can fail is checked before the first write, but for the counts: asking for each first would cost
-- a fifth of the call. Where Redis will not add to one (no integer, too large, no hash), those before it are taken back.
-- The first write is the watermarks': where Redis takes no writes (full, read-only, short of replicas), it says so here, and nothing is
-- changed. Should another write fail all the same, the shard's state becomes "failed": no call is applied to it again, so nothing counts
-- twice, until it is rebuilt.
local n = tonumber(ARGV[3])
local fields, before, moved = {'build'}, {}, {}
for i = 1, n do fields[i + 1] = ARGV[1 + 3 * i] end
fields[n + 2], fields[n + 3] = 'published', 'state'
local stored = redis.call('HMGET', KEYS[1], unpack(fields))
local state, published = table.remove(stored), table.remove(stored)
if state == 'failed' then return redis.error_reply('VIEWGATE ' .. KEYS[1] .. ' failed earlier: rebuild') end
local same = stored[1] == ARGV[1]
for i = 1, n do
  local field, expected, new = ARGV[1 + 3 * i], ARGV[2 + 3 * i], ARGV[3 + 3 * i]
  if stored[i + 1] ~= expected then same = false end
  if new ~= expected then
    moved[#moved + 1] = field; moved[#moved + 1] = new
    before[#before + 1] = field; before[#before + 1] = expected
  end
end
if not same then return stored end

local effects = cmsgpack.unpack(ARGV[#ARGV])
local counts = 0
for _, list in ipairs(effects.counts) do counts = counts + #list - 1 end
for i = 3 + counts, #KEYS - #effects.rows do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'hash' and kind ~= 'none' then return redis.error_reply('VIEWGATE ' .. KEYS[i] .. ' holds a ' .. kind .. ', not a hash') end
end

if published then
  local kind = redis.call('TYPE', KEYS[2]).ok
  if kind ~= 'set' and kind ~= 'none' then return redis.error_reply('VIEWGATE ' .. KEYS[2] .. ' holds a ' .. kind .. ', not a set') end
end

-- a repair moves no watermark: it writes what is there already
if #moved == 0 and #KEYS > 2 then moved, before = {'build', ARGV[1]}, {'build', ARGV[1]} end
if #moved > 0 then
  local answer = redis.pcall('HSET', KEYS[1], unpack(moved))
  -- Redis 6 puts the line of the script before the error's code
  if type(answer) == 'table' then return redis.error_reply((string.gsub(answer.err, '^@user_script: %d+: %-?', ''))) end
end

-- a row without a profile, all of whose counts are 0, reads as one that never was
local function sweep(emptied)
  for _, key in ipairs(emptied) do
    if redis.call('HEXISTS', key, ARGV[2]) == 0 then
      local empty = true
      for _, value in ipairs(redis.call('HVALS', key)) do
        if value ~= '0' then empty = false; break end
      end
      if empty then redis.call('DEL', key) end
    end
  end
end

local emptied, place = {}, 2

local function add()
  for _, list in ipairs(effects.counts) do
    local code = list[1]
    for j = 2, #list do
      place = place + 1
      if redis.call('HINCRBY', KEYS[place], code, list[j]) == 0 then emptied[#emptied + 1] = KEYS[place] end
    end
  end
end

-- what was added to the counts before the one at this place; one that was not there is left 0
local function give_back(refused)
  local zeroed, at = {}, 2
  for _, list in ipairs(effects.counts) do
    for j = 2, #list do
      at = at + 1
      if at == refused then return sweep(zeroed) end
      local back = string.sub(list[j], 1, 1) == '-' and string.sub(list[j], 2) or '-' .. list[j]
      if redis.call('HINCRBY', KEYS[at], list[1], back) == 0 then zeroed[#zeroed + 1] = KEYS[at] end
    end
  end
end

local function write()
  if published then
    -- as many as fit on Lua's stack
    for i = 3, #KEYS, 4000 do redis.call('SADD', KEYS[2], unpack(KEYS, i, math.min(i + 3999, #KEYS))) end
  end
  for _, profile in ipairs(effects.profiles) do
    place = place + 1
    local key = KEYS[place]
    if #profile == 0 then
      redis.call('HDEL', key, unpack(effects.columns))
      emptied[#emptied + 1] = key
    else
      redis.call('HSET', key, unpack(profile))
      for _, code in ipairs(effects.zeros) do redis.call('HSETNX', key, code, '0') end
    end
  end
  for _, claim in ipairs(effects.claims) do
    place = place + 1
    if claim[2] then redis.call('HSET', KEYS[place], claim[1], claim[2]) else redis.call('HDEL', KEYS[place], claim[1]) end
  end
  for _, row in ipairs(effects.rows) do
    place = place + 1
    redis.call('DEL', KEYS[place])
    if #row > 0 then redis.call('HSET', KEYS[place], unpack(row)) end
  end
  sweep(emptied)
end

-- Redis 6 raises a text, Redis 7 a table
local function words(problem) return type(problem) == 'table' and problem.err or problem end

local function failed(problem)
  redis.call('HSET', KEYS[1], 'state', 'failed')
  return redis.error_reply('VIEWGATE ' .. KEYS[1] .. ' failed half-way: ' .. words(problem))
end

local added, refusal = pcall(add)
if not added then
  local restored, problem = pcall(function() give_back(place); redis.call('HSET', KEYS[1], unpack(before)) end)
  if not restored then return failed(problem) end
  return redis.error_reply('VIEWGATE ' .. KEYS[place] .. ': ' .. words(refusal))
end
local written, problem = pcall(write)
if not written then return failed(problem) end
return 1
