"""Conversations in Redis: one list each, appended to by a constant script: an append is whole or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from ...config.urls import masked
from ...errors import StorageError
from ..states.redis import TIMEOUT_SECONDS, Wire
from .protocol import Capabilities, Item, Kept, chunks, grown, named

#: What is sent ahead of an append is gone after so long, in seconds, if its sender died.
_STAGED_SECONDS: Final = 3600
_HEAD: Final = "celeriac:history:{"

# KEYS: the list, the marks' sets 1 to 9, what was sent ahead. An element is "MARK TIME\\nBODY"; `-` is no time yet.
# A list's element n is entry n + 1.
_APPEND: Final = """
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
local before = redis.call('LLEN', KEYS[1])
local last = before
local start = 0
while true do
  local page = redis.call('LRANGE', KEYS[11], start, start + 499)
  if #page == 0 then break end
  for _, one in ipairs(page) do
    local mark, at, rest = string.match(one, '^(%d) ([^\\n]*)(\\n.*)$')
    if at == '-' then at = now end
    last = redis.call('RPUSH', KEYS[1], mark .. ' ' .. at .. rest)
    if mark ~= '0' then redis.call('ZADD', KEYS[tonumber(mark) + 1], last, last) end
  end
  start = start + 500
end
redis.call('DEL', KEYS[11])
return {before + 1, last}
"""
_DELETE: Final = """
local found = redis.call('LLEN', KEYS[1])
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= found then return {found, 0} end
redis.call('DEL', unpack(KEYS))
return {found, 1}
"""


class RedisPlace:
    """Conversations in one Redis database, under keys that begin with `celeriac:history:`.

    As durable as that Redis: with `appendfsync everysec`, a crash of the server loses up to a second.
    """

    capabilities = Capabilities(durable=True, shared=True)

    def __init__(self, url: str, timeout: float = TIMEOUT_SECONDS) -> None:
        self._url = url
        self._timeout = timeout
        self._here = threading.local()

    def append(self, conversation: str, items: Iterable[Item]) -> tuple[int, int]:
        staged = f"{_key(conversation)}:ahead:{secrets.token_hex(8)}".encode()
        with self._explained():
            wire = self._wire()
            for chunk in chunks(items):
                wire.ask(b"RPUSH", staged, *map(_element, chunk))
                wire.ask(b"EXPIRE", staged, b"%d" % _STAGED_SECONDS)
            first, last = wire.run(_APPEND, 11, [*_keys(conversation), staged])
        return int(first), int(last)

    def load(
        self,
        conversation: str,
        first: int = 1,
        last: int | None = None,
        *,
        limit: int | None = None,
        newest: bool = False,
        mark: int | None = None,
    ) -> list[Kept]:
        first = max(first, 1)
        if limit == 0 or last is not None and last < first:
            return []
        with self._explained():
            if mark is not None:
                return self._marked(conversation, first, last, limit, newest, mark)
            if newest and limit is not None:
                return self._newest(conversation, first, last, limit)
            if limit is not None:
                last = first + limit - 1 if last is None else min(last, first + limit - 1)
            return self._between(conversation, first, last)

    def _between(self, conversation: str, first: int, last: int | None) -> list[Kept]:
        end = b"-1" if last is None else b"%d" % (last - 1)
        found = self._wire().look(b"LRANGE", _keys(conversation)[0], b"%d" % (first - 1), end)
        return [_kept(number, element) for number, element in enumerate(found, first)]

    def _newest(self, conversation: str, first: int, last: int | None, limit: int) -> list[Kept]:
        entries = self.count(conversation)
        end = entries if last is None else min(last, entries)
        start = max(first, end - limit + 1)
        return self._between(conversation, start, end) if start <= end else []

    def _marked(
        self, conversation: str, first: int, last: int | None, limit: int | None, newest: bool, mark: int
    ) -> list[Kept]:
        low, high = b"%d" % first, b"+inf" if last is None else b"%d" % last
        cut = [] if limit is None else [b"LIMIT", b"0", b"%d" % limit]
        command, ends = (b"ZREVRANGEBYSCORE", (high, low)) if newest else (b"ZRANGEBYSCORE", (low, high))
        keys = _keys(conversation)
        numbers = sorted(int(one) for one in self._wire().look(command, keys[mark], *ends, *cut))
        found = ((number, self._wire().look(b"LINDEX", keys[0], b"%d" % (number - 1))) for number in numbers)
        return [_kept(number, element) for number, element in found if element is not None]

    def count(self, conversation: str) -> int:
        with self._explained():
            return int(self._wire().look(b"LLEN", _keys(conversation)[0]))

    def delete(self, conversation: str, expected: int | None = None) -> int:
        keys = _keys(conversation)
        with self._explained():
            found, gone = self._wire().run(_DELETE, len(keys), [*keys, b"" if expected is None else b"%d" % expected])
        if not gone:
            raise grown(conversation, expected or 0, int(found))
        return int(found)

    def conversations(self) -> Iterator[str]:
        names: set[str] = set()
        cursor = b"0"
        with self._explained():
            while True:
                cursor, page = self._wire().look(
                    b"SCAN", cursor, b"MATCH", f"{_HEAD}*}}".encode(), b"COUNT", b"1000", b"TYPE", b"list"
                )
                names.update(name.decode().removeprefix(_HEAD).removesuffix("}") for name in page)
                if cursor == b"0":
                    return iter(sorted(names))

    def close(self) -> None:
        # Those of other threads close with them.
        wire, self._here = getattr(self._here, "wire", None), threading.local()
        if wire is not None:
            wire.close()

    def _wire(self) -> Wire:
        """This thread's connection."""
        wire: Wire | None = getattr(self._here, "wire", None)
        if wire is None or wire.pid != os.getpid():
            wire = self._here.wire = Wire(self._url, self._timeout)
        return wire

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from redis.exceptions import RedisError

        try:
            yield
        except (RedisError, OSError) as fault:
            raise StorageError(f"the histories in Redis {masked(self._url)} cannot be used: {fault}") from fault


def _key(conversation: str) -> str:
    return f"{_HEAD}{named(conversation)}}}"


def _keys(conversation: str) -> list[bytes]:
    """The list, and the sets of the numbers of entries by their marks."""
    key = _key(conversation).encode()
    return [key, *(key + b":mark:%d" % mark for mark in range(1, 10))]


def _element(item: Item) -> bytes:
    at = "-" if item.at is None else repr(float(item.at))
    return b"%d %b\n%b" % (item.mark, at.encode(), item.body)


def _kept(number: int, element: bytes) -> Kept:
    head, _, body = element.partition(b"\n")
    return Kept(number, float(head.partition(b" ")[2]), body)
