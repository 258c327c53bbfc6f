"""The places of durable calls: how one is known again when the agent runs anew.

Calls are known by their order. What runs at once beside other parts of an agent has a lane: its calls are known by
their order in that, whoever is quicker. The calls of all lanes share the positions of their step.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import NamedTuple

from ..errors import CallMismatch
from ..storage import calls, serial


class Place(NamedTuple):
    """Where a call stands: its position among the calls of its step, where in which lane (a hash), and what an earlier
    attempt began there.
    """

    position: int
    lane: str | None
    known: calls.Begun | None

    def noted(self, mark: str) -> dict[str, str]:
        """What is kept of a call to know it again."""
        return {"call": mark} if self.lane is None else {"call": mark, "lane": self.lane}


class _Lane:
    """An order of calls of its own, in one attempt."""

    __slots__ = ("count", "name", "places")

    def __init__(self, places: Places, name: str) -> None:
        self.places, self.name = places, name
        self.count = itertools.count()


#: The lane of what runs here; None: the agent's own order.
_lane: ContextVar[_Lane | None] = ContextVar("celeriac_lane", default=None)


class Places:
    """The places of the calls of one attempt of a step. `read` gives what earlier attempts began from a position on, in
    order, `calls.AT_ONCE` at most; `hashed` a hash of a lane's name and a number.
    """

    def __init__(self, step: str, read: Callable[[int], list[calls.Begun]], hashed: Callable[[str, int], str]) -> None:
        self._step = step
        self._read = read
        self._hashed = hashed
        self._lock = threading.Lock()
        #: No position before this one is free; some behind it are taken.
        self._next = 0
        self._taken: set[int] = set()
        #: What earlier attempts began and this one has not come to: by position, and the positions of those in lanes.
        self._begun: dict[int, calls.Begun] = {}
        self._lanes: dict[str, int] = {}
        #: Calls of earlier attempts are read up to this position.
        self._read_to = 0.0
        self._opened: dict[str, Iterator[int]] = {}

    @contextlib.contextmanager
    def lane(self, name: str) -> Iterator[None]:
        """Let the calls that are made in this context have an order of their own. Lanes of one name are told apart by
        the order in which they are opened.
        """
        path = f"{self.lane_name}/{name}"
        with self._lock:
            path = f"{path}#{next(self._opened.setdefault(path, itertools.count()))}"
        token = _lane.set(_Lane(self, path))
        try:
            yield
        finally:
            _lane.reset(token)

    @property
    def lane_name(self) -> str:
        """The name of the lane in which this is asked; empty in the agent's own order."""
        here = self._here()
        return "" if here is None else here.name

    def _here(self) -> _Lane | None:
        here = _lane.get()  # a call of another agent is made in this context, too, and has calls of its own
        return here if here is not None and here.places is self else None

    def next(self, kind: str, name: str, mark: str) -> Place:
        """The place of a call that is made now. Raises CallMismatch."""
        here = self._here()
        with self._lock:
            lane = None if here is None else self._hashed(here.name, next(here.count))
            position = self._next if lane is None else self._in_lane(lane, kind, mark)
            self._read_on(position)
            known = self._begun.pop(position, None)
            self._taken.add(position)
            while self._next in self._taken:
                self._taken.discard(self._next)
                self._next += 1
        if known is not None and (known.kind, serial.decode(known.input)["call"]) != (kind, mark):
            raise CallMismatch(
                f"call {position + 1} of step {self._step} is {name!r} now; recorded was {known.name!r}, "
                "or another request. An agent has to make the same calls in the same order each time it runs"
            )
        return Place(position, lane, known)

    def _in_lane(self, lane: str, kind: str, mark: str) -> int:
        """The position of a call in a lane: where it was recorded, or the first that is free."""
        while lane not in self._lanes and self._read_to != float("inf"):
            self._read_on(int(self._read_to))
        if lane in self._lanes:
            return self._lanes.pop(lane)
        before = self._begun.get(self._next)  # it may have been recorded before there were lanes
        if before is not None and before.kind == kind and _known(before) == (mark, None):
            return self._next
        return next(n for n in itertools.count(self._next) if n not in self._taken and n not in self._begun)

    def _read_on(self, position: int) -> None:
        """Read the calls of earlier attempts from a position on, unless that has been done."""
        if position < self._read_to:
            return
        found = self._read(position)
        for one in found:
            self._begun[one.position] = one
            if '"lane":' in one.input and (lane := _known(one)[1]) is not None:
                self._lanes[lane] = one.position
        self._read_to = found[-1].position + 1 if len(found) == calls.AT_ONCE else float("inf")


def _known(one: calls.Begun) -> tuple[str, str | None]:
    """By what a call is known: its mark, and its lane."""
    noted = serial.decode(one.input)
    return noted["call"], noted.get("lane")
