"""What the Redis store asks of the server in one step: Lua scripts, each atomic there. Times are the server's own.

KEYS are always lock, session, index and the user's index; `member` names a session in both indexes: JSON of
[user_id, session_id]. All keys of an agent carry one hash tag, so that a Redis Cluster keeps them in one place.
"""

ACQUIRE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
"""ARGV: token, lease in ms. 1 if the lock is ours, as it is when this is sent a second time."""

RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
"""
"""ARGV: token, lease in ms. 0 if the lock was lost."""

RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
"""ARGV: token."""

_NOW = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
"""

_FORGET = """
local function forget(member)
    local user = cjson.decode(member)[1]
    redis.call('DEL', prefix .. ':session:' .. member)
    redis.call('ZREM', prefix .. ':index', member)
    redis.call('ZREM', prefix .. ':user:' .. user, member)
end
"""

SAVE = (
    _NOW
    + """
local member, prefix, ttl = ARGV[2], ARGV[3], tonumber(ARGV[4])
"""
    + _FORGET
    + """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('(%.6f', now - ttl))
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', string.format('(%.6f', now - ttl))
local most = tonumber(ARGV[5])
if not redis.call('ZSCORE', KEYS[3], member) and redis.call('ZCARD', KEYS[3]) >= most then
    for _, oldest in ipairs(redis.call('ZRANGE', KEYS[3], 0, math.max(1, math.floor(most / 10)) - 1)) do
        forget(oldest)
    end
end
local moment = string.format('%.6f', now)
redis.call('HSETNX', KEYS[2], 'created', moment)
redis.call('HSET', KEYS[2], 'updated', moment, 'count', ARGV[6], 'messages', ARGV[7])
redis.call('ZADD', KEYS[3], moment, member)
redis.call('ZADD', KEYS[4], moment, member)
for number = 2, 4 do redis.call('PEXPIRE', KEYS[number], math.ceil(ttl * 1000)) end
return redis.call('ZCARD', KEYS[3])
"""
)
"""ARGV: token, member, prefix, TTL in s, most sessions, count, messages. How many sessions there are, -1: lock lost.

The indexes live as long as their youngest session, so their TTL is that of the session saved last.
"""

DELETE = """
local there = redis.call('DEL', KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
return {there, redis.call('ZCARD', KEYS[3])}
"""
"""ARGV: member. Whether the session was there, and how many are left."""

LIST = (
    _NOW
    + """
local found = {}
local oldest = string.format('%.6f', now - tonumber(ARGV[2]))
for _, member in ipairs(redis.call('ZREVRANGEBYSCORE', KEYS[4], '+inf', oldest)) do
    local told = redis.call('HMGET', ARGV[1] .. ':session:' .. member, 'count', 'created', 'updated')
    if told[1] then found[#found + 1] = {member, told[1], told[2], told[3]} end
end
return found
"""
)
"""ARGV: prefix, TTL in s. The user's sessions, the most recently used first: member, count, created, updated."""

CLEAN_UP = (
    _NOW
    + """
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', string.format('(%.6f', now - tonumber(ARGV[1])))
return redis.call('ZCARD', KEYS[3])
"""
)
"""ARGV: TTL in s. How many sessions there are. Redis forgets the sessions themselves."""
