"""What Redis does in one step, in Lua: a job is never half changed, whoever dies in between.

A job is the hash `genai:job:ID`; while it is not finished, an entry of its queue's stream names it. Whoever runs it
holds two things: the entry, in the pending list of the consumer group, which goes to another worker once nobody
renewed it for the lease's time; and the number `lease`, which grows each time the job is begun. Only with the current
number can a job be finished, so a worker that comes back after it lost the entry changes nothing.

Times are Redis' own, in seconds since 1970, so that no clock of a pod matters. Scripts name keys that they were not
given (the key of a client's `Idempotency-Key`): they are for one Redis or one with Sentinel, not for a Redis Cluster.
"""

_SHARED = """
local function now()
  local time = redis.call('TIME')
  return string.format('%.3f', time[1] + time[2] / 1e6)
end

local function leave(job, stream, group)
  local entry = redis.call('HGET', job, 'entry')
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
end

local function settle(job, stream, group, keep, status, reason, detail)
  redis.call('HSET', job, 'status', status, 'reason', reason, 'detail', detail, 'finished', now())
  redis.call('HINCRBY', job, 'completions', 1)
  redis.call('HDEL', job, 'input')
  redis.call('EXPIRE', job, keep)
  local key = redis.call('HGET', job, 'key')
  if key ~= '' then redis.call('EXPIRE', key, keep) end
  leave(job, stream, group)
end

local function holds(stream, group, consumer, entry)
  local held = redis.pcall('XPENDING', stream, group, entry, entry, 1)
  return held[1] and held[1][2] == consumer
end

local function pending(stream, group)
  local found = redis.pcall('XPENDING', stream, group)
  return found[1] or 0
end
"""

# KEYS job stream key; ARGV group most id fingerprint, then fields and values. `key` may be '': no Idempotency-Key.
SUBMIT = (
    _SHARED
    + """
local job, stream, key = KEYS[1], KEYS[2], KEYS[3]
local group, most, id, fingerprint = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
if key ~= '' then
  local known = redis.call('HMGET', key, 'job', 'fingerprint')
  if known[1] and redis.call('EXISTS', 'genai:job:' .. known[1]) == 1 then
    return {known[2] == fingerprint and 'known' or 'other', known[1]}
  end
end
redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
if redis.call('XLEN', stream) - pending(stream, group) >= most then return {'full'} end
local entry = redis.call('XADD', stream, '*', 'job', id)
redis.call('HSET', job, 'id', id, 'status', 'queued', 'attempts', 0, 'lease', 0, 'cancel', 0, 'entry', entry,
  'key', key, unpack(ARGV, 6))
local created = now()
redis.call('HSET', job, 'created', created)
if ARGV[5] ~= '' then redis.call('HSET', job, 'deadline', string.format('%.3f', created + ARGV[5])) end
if key ~= '' then redis.call('HSET', key, 'job', id, 'fingerprint', fingerprint) end
return {'created', id}
"""
)

# KEYS job stream; ARGV group client keep
CANCEL = (
    _SHARED
    + """
local job, stream, group = KEYS[1], KEYS[2], ARGV[1]
local found = redis.call('HMGET', job, 'client', 'status')
if found[1] ~= ARGV[2] then return 'none' end
if found[2] == 'queued' then
  settle(job, stream, group, ARGV[3], 'cancelled', '', '')
  return 'cancelled'
end
if found[2] == 'running' then
  redis.call('HSET', job, 'cancel', 1)
  return 'asked'
end
return found[2] == 'cancelled' and 'already' or 'finished'
"""
)

# KEYS job stream; ARGV group consumer entry most keep, and the details of both failures it may find
BEGIN = (
    _SHARED
    + """
local job, stream = KEYS[1], KEYS[2]
local group, consumer, entry, most, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if not holds(stream, group, consumer, entry) then return {'lost'} end
local found = redis.call('HMGET', job, 'status', 'entry', 'cancel', 'deadline', 'attempts', 'kind')
if found[2] ~= entry or (found[1] ~= 'queued' and found[1] ~= 'running') then
  redis.call('XACK', stream, group, entry)
  redis.call('XDEL', stream, entry)
  return {'gone'}
end
local function ended(status, reason, detail)
  settle(job, stream, group, keep, status, reason, detail)
  return {status, found[6]}
end
if found[3] == '1' then return ended('cancelled', '', '') end
if found[4] and tonumber(found[4]) <= tonumber(now()) then return ended('failed', 'deadline', ARGV[6]) end
if tonumber(found[5]) >= most then return ended('failed', 'attempts', ARGV[7]) end
local attempt = redis.call('HINCRBY', job, 'attempts', 1)
local lease = redis.call('HINCRBY', job, 'lease', 1)
local time = now()
redis.call('HSET', job, 'status', 'running', 'worker', consumer, 'started', time)
local work = redis.call('HMGET', job, 'kind', 'model', 'gpus', 'input', 'created', 'request_id')
return {'run', lease, attempt, found[1] == 'running' and 1 or 0, time - work[5] .. '',
  found[4] and found[4] - time .. '' or '', unpack(work)}
"""
)

# KEYS job stream; ARGV group consumer entry lease
RENEW = (
    _SHARED
    + """
local job, stream = KEYS[1], KEYS[2]
local group, consumer, entry, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = redis.call('HMGET', job, 'lease', 'status', 'cancel')
if found[1] ~= lease or found[2] ~= 'running' or not holds(stream, group, consumer, entry) then return 'lost' end
redis.call('XCLAIM', stream, group, consumer, 0, entry, 'JUSTID')
return found[3] == '1' and 'cancel' or 'held'
"""
)

# KEYS job stream; ARGV group lease keep status reason detail result. 'again': it was this very worker, just before.
FINISH = (
    _SHARED
    + """
local job, stream, group, lease, status = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[4]
local found = redis.call('HMGET', job, 'lease', 'status', 'cancel')
if found[1] ~= lease then return 'lost' end
if found[2] ~= 'running' then return found[2] == 'queued' and 'lost' or 'again ' .. found[2] end
if found[3] == '1' then status = 'cancelled' end
if status == 'succeeded' then redis.call('HSET', job, 'result', ARGV[7]) end
settle(job, stream, group, ARGV[3], status, status == 'failed' and ARGV[5] or '', status == 'failed' and ARGV[6] or '')
return 'done ' .. status
"""
)

# KEYS job stream; ARGV group consumer entry lease nobody idle attempts. The entry may be taken over once `idle`
# milliseconds have become those of the lease; `attempts` is -1 where this one shall not count.
RELEASE = (
    _SHARED
    + """
local job, stream = KEYS[1], KEYS[2]
local group, consumer, entry, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = redis.call('HMGET', job, 'lease', 'status')
if found[1] ~= lease or found[2] ~= 'running' or not holds(stream, group, consumer, entry) then return 0 end
redis.call('HSET', job, 'status', 'queued', 'worker', '')
redis.call('HINCRBY', job, 'attempts', ARGV[7])
redis.call('XCLAIM', stream, group, ARGV[5], 0, entry, 'IDLE', ARGV[6], 'JUSTID')
return 1
"""
)

# KEYS stream; ARGV group consumer nobody idle. What was given to the consumer and never begun goes to the next one.
LEAVE = """
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local held = redis.pcall('XPENDING', stream, group, '-', '+', 10000, consumer)
if held.err then return 0 end
for _, each in ipairs(held) do
  redis.call('XCLAIM', stream, group, ARGV[3], 0, each[1], 'IDLE', ARGV[4], 'JUSTID')
end
redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
return #held
"""

# KEYS stream; ARGV group milliseconds. Forgets consumers that hold nothing and have not been heard of for so long.
TIDY = """
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for at = 1, #consumer, 2 do about[consumer[at]] = consumer[at + 1] end
  if about['pending'] == 0 and about['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about['name'])
    gone = gone + 1
  end
end
return gone
"""

# KEYS stream; ARGV group lease in milliseconds. {jobs that wait for a worker, jobs that a living worker has}
DEPTH = (
    _SHARED
    + """
local taken = pending(KEYS[1], ARGV[1])
local orphans = redis.pcall('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[2], '-', '+', 10000)
local left = orphans.err and 0 or #orphans
return {redis.call('XLEN', KEYS[1]) - taken + left, taken - left}
"""
)
