"""State in Redis: one string a value, written by one constant script, so that a change is whole or not at all.

A scope's keys also stand in a sorted set, for lists in order. What changed is told on a channel, so that copies in
other processes can be dropped. All keys of a scope share a hash tag: they lie on one node of a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from ..wires import TIMEOUT_SECONDS, Wires, options
from .protocol import Capabilities, Entry, Origin, Watch, Write, beyond, conflict

#: So many keys are listed or deleted at once.
_BATCH: Final = 500
_CHANNEL: Final = b"celeriac:state:changed"

# A value is "VERSION META-LENGTH PASSING\nMETA BODY". Versions count on, in each scope, from the microseconds of
# Redis's clock when the scope was first written to: also after a loss of all data no version comes again.
_WRITE: Final = """
local count = #KEYS - 2
for i = 1, count do
  local expected = ARGV[i * 5 - 2]
  if expected ~= '' then
    local found = string.match(redis.call('GETRANGE', KEYS[i + 2], 0, 20), '^%d+') or '0'
    if found ~= expected then return {-i, found} end
  end
end
local versions = {}
for i = 1, count do
  local at, name, ttl = KEYS[i + 2], ARGV[i * 5 - 3], ARGV[i * 5 - 1]
  local version = redis.call('INCR', KEYS[1])
  if version == 1 then
    local clock = redis.call('TIME')
    version = redis.call('INCRBY', KEYS[1], string.format('%.0f', clock[1] * 1000000 + clock[2]))
  end
  versions[i] = string.format('%.0f', version)
  if ARGV[i * 5 + 1] == '-' then
    redis.call('ZREM', KEYS[2], name)
    if redis.call('DEL', at) == 0 then versions[i] = '0' end
  else
    local body = versions[i] .. ARGV[i * 5]
    if ttl ~= '' then
      redis.call('SET', at, body, 'PX', ttl)
      redis.call('ZADD', KEYS[2], 0, name)
    elseif not redis.call('SET', at, body, 'XX') then
      redis.call('SET', at, body)
      redis.call('ZADD', KEYS[2], 0, name)
    end
  end
  redis.call('PUBLISH', ARGV[1], at)
end
return versions
"""

_TIDY: Final = """
local there = {}
for i = 2, #KEYS do
  there[i - 1] = redis.call('EXISTS', KEYS[i])
  if there[i - 1] == 0 then redis.call('ZREM', KEYS[1], ARGV[i - 1]) end
end
return there
"""


class RedisBackend:
    """Values in one Redis database, under keys that begin with `celeriac:state:`.

    As durable as that Redis: with `appendfsync everysec`, a crash of the server loses up to a second.
    """

    capabilities = Capabilities(durable=True, shared=True)

    def __init__(self, url: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._timeout = timeout
        self._wires = Wires(url, timeout, "the state")

    def get(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        if not keys:
            return {}
        head = _value_key(scope, "")
        with self._wires.explained():
            values = self._wires.mine().look(b"MGET", *((head + key).encode() for key in keys))
        return {key: _entry(value) for key, value in zip(keys, values, strict=True) if value is not None}

    def put(self, scope: str, writes: Sequence[Write], origin: Origin | None = None) -> list[int]:
        tag = _tag(scope)
        keys = [f"{tag}last", f"{tag}names", *(f"{tag}v:{write.key}" for write in writes)]
        given: list[bytes] = [key.encode() for key in keys]
        given.append(_CHANNEL)
        for write in writes:
            expected = b"" if write.expected is None else b"%d" % write.expected
            ttl = b"" if write.ttl is None else b"%d" % max(int(write.ttl * 1000), 1)
            given += (write.key.encode(), expected, ttl, _packed(write), b"-" if write.body is None else b"+")
        with self._wires.explained():
            answer = self._wires.mine().run(_WRITE, len(keys), given)
        if answer and isinstance(answer[0], int):
            failed = writes[-answer[0] - 1]
            raise conflict(scope, failed.key, failed.expected, int(answer[1]))
        return [int(version) for version in answer]

    def keys(self, scope: str, prefix: str = "", after: str = "", limit: int | None = None) -> list[str]:
        top = beyond(prefix)
        end = b"+" if top is None else b"(" + top.encode()
        start = b"[" + prefix.encode() if prefix > after else b"(" + after.encode() if after else b"-"
        found: list[str] = []
        while limit is None or len(found) < limit:
            with self._wires.explained():
                names = _names_key(scope).encode()
                page: list[bytes] = self._wires.mine().look(
                    b"ZRANGEBYLEX", names, start, end, b"LIMIT", b"0", b"%d" % _BATCH
                )
                found += self._there(scope, [name.decode() for name in page])
            if len(page) < _BATCH:
                break
            start = b"(" + page[-1]
        return found if limit is None else found[:limit]

    def _there(self, scope: str, names: list[str]) -> list[str]:
        """Those of the names that have a value; others, whose time was over, are struck off."""
        if not names:
            return []
        head = _value_key(scope, "")
        keys = [_names_key(scope), *(head + name for name in names)]
        there = self._wires.mine().run(_TIDY, len(keys), [text.encode() for text in (*keys, *names)])
        return [name for name, is_there in zip(names, there, strict=True) if is_there]

    def left(self, scope: str, keys: Sequence[str]) -> dict[str, float]:
        head = _value_key(scope, "")
        with self._wires.explained():
            wire = self._wires.mine()
            found = {key: int(wire.look(b"PTTL", (head + key).encode())) for key in keys}
        return {key: left / 1000 for key, left in found.items() if left > 0}

    def scopes(self) -> list[str]:
        head, tail = "celeriac:state:{", "}names"
        names: set[str] = set()
        cursor = b"0"
        with self._wires.explained():
            while True:
                cursor, page = self._wires.mine().look(
                    b"SCAN", cursor, b"MATCH", f"{head}*{tail}".encode(), b"COUNT", b"1000"
                )
                names.update(name.decode() for name in page)
                if cursor == b"0":
                    break
        # A value's key may look like it, but then the first } does not end the name.
        inside = [name.removeprefix(head).removesuffix(tail) for name in names]
        return sorted(one.replace("%7D", "}").replace("%25", "%") for one in inside if "}" not in one)

    def clear(self, scope: str, origin: Origin | None = None) -> int:
        """As the protocol says; a scope of many keys goes in parts, each of them whole."""
        count, after = 0, ""
        while page := self.keys(scope, after=after, limit=_BATCH):
            count += sum(1 for version in self.put(scope, [Write(key, None) for key in page]) if version)
            after = page[-1]
        return count

    def watch(self) -> Watch | None:
        return _Channel(self._url, self._timeout)

    def close(self) -> None:
        self._wires.close()


class _Channel:
    """Hears of changes on a connection of its own.

    Redis answers a PING after what it published before; so when the answer is here, all that was acknowledged before
    the question is too. Whatever goes wrong means that something may have been missed.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = url
        self._timeout = timeout
        self._connection: Any = None
        self._pid = 0

    def look(self) -> set[tuple[str, str]] | None:
        from redis.exceptions import RedisError

        try:
            if self._connection is None or self._pid != os.getpid():
                self._subscribe()
                return None
            self._connection.send_command("PING")
            changed = set()
            while (answer := self._connection.read_response())[0] != b"pong":
                changed.add(_named(answer[2]))
            return changed
        except (RedisError, OSError):
            self.close()
            return None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()

    def _subscribe(self) -> None:
        from redis import ConnectionPool

        self._connection = ConnectionPool.from_url(self._url, **options(self._timeout)).make_connection()
        self._pid = os.getpid()
        self._connection.connect()
        self._connection.send_command("SUBSCRIBE", _CHANNEL)
        self._connection.read_response()


def _tag(scope: str) -> str:
    # The first } ends the scope, whatever characters scope and key hold.
    return f"celeriac:state:{{{scope.replace('%', '%25').replace('}', '%7D')}}}"


def _value_key(scope: str, key: str) -> str:
    return f"{_tag(scope)}v:{key}"


def _names_key(scope: str) -> str:
    return f"{_tag(scope)}names"


def _named(value_key: bytes) -> tuple[str, str]:
    """The scope and key of a value's key."""
    scope, _, key = value_key.decode().removeprefix("celeriac:state:{").partition("}v:")
    return scope.replace("%7D", "}").replace("%25", "%"), key


def _packed(write: Write) -> bytes:
    """What follows the version."""
    meta = write.meta.encode()
    return b" %d %d\n%b%b" % (len(meta), write.ttl is not None, meta, write.body or b"")


def _entry(value: bytes) -> Entry:
    head, _, rest = value.partition(b"\n")
    version, length, passing = map(int, head.split(b" "))
    return Entry(rest[length:], version, rest[:length].decode(), bool(passing))
