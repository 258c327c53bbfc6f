"""Conversations in Redis: one list each, appended to by a constant script: an append is whole or not there."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from typing import Final

from ..wires import TIMEOUT_SECONDS, Wires
from .protocol import Capabilities, Item, Kept, chunks, grown, named

#: What is sent ahead of an append is gone after so long, in seconds, if its sender died.
_STAGED_SECONDS: Final = 3600
_HEAD: Final = "celeriac:history:{"

# KEYS: the list, the marks' sets 1 to 9, what was sent ahead. ARGV: how long the list has to be; empty: no matter.
# An element is "MARK TIME\\nBODY"; `-` is no time yet. A list's element n is entry n + 1.
_APPEND: Final = """
local clock = redis.call('TIME')
local now = clock[1] .. '.' .. string.format('%06d', clock[2])
local before = redis.call('LLEN', KEYS[1])
if ARGV[1] ~= '' and tonumber(ARGV[1]) ~= before then
  redis.call('DEL', KEYS[11])
  return {0, before}
end
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
        self._wires = Wires(url, timeout, "the histories")

    def append(self, conversation: str, items: Iterable[Item]) -> tuple[int, int]:
        return self._append(conversation, items, None)

    def append_after(self, conversation: str, items: Iterable[Item], expected: int) -> tuple[int, int]:
        return self._append(conversation, items, expected)

    def _append(self, conversation: str, items: Iterable[Item], expected: int | None) -> tuple[int, int]:
        staged = f"{_key(conversation)}:ahead:{secrets.token_hex(8)}".encode()
        with self._wires.explained():
            wire = self._wires.mine()
            for chunk in chunks(items):
                wire.ask(b"RPUSH", staged, *map(_element, chunk))
                wire.ask(b"EXPIRE", staged, b"%d" % _STAGED_SECONDS)
            wanted = b"" if expected is None else b"%d" % expected
            first, last = wire.run(_APPEND, 11, [*_keys(conversation), staged, wanted])
        if not first:
            raise grown(conversation, expected or 0, int(last))
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
        with self._wires.explained():
            if mark is not None:
                return self._marked(conversation, first, last, limit, newest, mark)
            if newest and limit is not None:
                return self._newest(conversation, first, last, limit)
            if limit is not None:
                last = first + limit - 1 if last is None else min(last, first + limit - 1)
            return self._between(conversation, first, last)

    def _between(self, conversation: str, first: int, last: int | None) -> list[Kept]:
        end = b"-1" if last is None else b"%d" % (last - 1)
        found = self._wires.mine().look(b"LRANGE", _keys(conversation)[0], b"%d" % (first - 1), end)
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
        numbers = sorted(int(one) for one in self._wires.mine().look(command, keys[mark], *ends, *cut))
        found = ((number, self._wires.mine().look(b"LINDEX", keys[0], b"%d" % (number - 1))) for number in numbers)
        return [_kept(number, element) for number, element in found if element is not None]

    def count(self, conversation: str) -> int:
        with self._wires.explained():
            return int(self._wires.mine().look(b"LLEN", _keys(conversation)[0]))

    def delete(self, conversation: str, expected: int | None = None) -> int:
        keys = _keys(conversation)
        with self._wires.explained():
            found, gone = self._wires.mine().run(
                _DELETE, len(keys), [*keys, b"" if expected is None else b"%d" % expected]
            )
        if not gone:
            raise grown(conversation, expected or 0, int(found))
        return int(found)

    def conversations(self) -> Iterator[str]:
        names: set[str] = set()
        cursor = b"0"
        with self._wires.explained():
            while True:
                cursor, page = self._wires.mine().look(
                    b"SCAN", cursor, b"MATCH", f"{_HEAD}*}}".encode(), b"COUNT", b"1000", b"TYPE", b"list"
                )
                names.update(name.decode().removeprefix(_HEAD).removesuffix("}") for name in page)
                if cursor == b"0":
                    return iter(sorted(names))

    def close(self) -> None:
        self._wires.close()


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
