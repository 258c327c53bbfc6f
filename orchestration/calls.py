"""Durable calls inside an agent: what they return is recorded, and given again when the agent runs anew.

A call is a step that the running step adds (`storage.calls`): fenced by the same claim, kept by checkpoints, shown like
any other. Calls are known by their order (see `lanes`), so an agent has to make the same ones in the same order each
time it runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import time
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel

from ..errors import CallFailed, NotSerializable, PlanError
from ..storage import calls, results, serial, steps
from ..storage.database import Transaction
from ..storage.faults import point
from ..storage.histories.protocol import Item
from ..storage.histories.sql import SqlPlace
from . import quotas
from .engine import Engine
from .guard import doors
from .lanes import Place, Places
from .plans import Step
from .rows import Rows, check_agents
from .sizes import check_requests
from .turn import Turn
from .work import Lost, Next, Work, lost

#: A call's name may have so many characters.
MOST_CHARACTERS = 100
#: Seconds between looks at a call that another worker makes, or that is not due yet: at first, and at most.
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.5


class Calls:
    """The durable calls of one attempt of a step.

    `run(work)` runs a claimed call here and records how it ended; `check()` raises if the step is to stop.
    """

    def __init__(self, engine: Engine, work: Work, run: Callable[[Work], None], check: Callable[[], None]) -> None:
        self._engine = engine
        self._work = work
        self._run = run
        self._check = check
        c = work.claimed
        self.places = Places(
            c.name,
            lambda first: engine.database.read(lambda tx: calls.begun(tx, c.session_id, c.number, first)),
            lambda lane, number: _mark(c.session_id, [lane, number]),
        )
        #: Whether the session was found paused when a call was recorded.
        self.held = False

    # -- functions ---------------------------------------------------------------------------------------------------

    def once(self, name: str, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """See `Context.once`."""
        check_name(name)
        mark = _mark(self._work.session_id, [name, *_known(args, kwargs)])
        place = self.places.next(calls.ONCE, name, mark)
        if in_loop():
            return self._once_later(place, name, mark, function, args, kwargs)
        if place.known is not None:
            return self._result(place.known.number)
        value = function(*args, **kwargs)
        if inspect.isawaitable(value):
            raise NotSerializable(f"call {name!r} gave something to await; only an async agent can do that")
        return self._record(place, name, mark, value)

    async def _once_later(
        self,
        place: Place,
        name: str,
        mark: str,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if place.known is not None:
            return self._result(place.known.number)
        value = function(*args, **kwargs)
        return self._record(place, name, mark, await value if inspect.isawaitable(value) else value)

    async def once_told(
        self, name: str, function: Callable[[], Any], told: Callable[[Any], Sequence[Item]] | None
    ) -> Any:
        """See `Context.once_told`."""
        check_name(name)
        mark = _mark(self._work.session_id, [name, [], {}])
        place = self.places.next(calls.ONCE, name, mark)
        if place.known is not None:
            return self._result(place.known.number)
        value = function()
        value = await value if inspect.isawaitable(value) else value
        return self._record(place, name, mark, value, told(value) if told is not None else ())

    def _record(self, at: Place, name: str, mark: str, value: Any, told: Sequence[Item] = ()) -> Any:
        """Record what a function gave, with what is told of it in the session's history; gives it as a later run will
        be given it.
        """
        engine, c = self._engine, self._work.claimed
        guarded = engine.guard.apply(value, doors.place_of(c.session_id))
        data = serial.encode(guarded, what=f"result of call {name!r}", limit=engine.settings.max_result_bytes)
        stored = quotas.store(engine, c.session_id, data)
        body = serial.encode(at.noted(mark)).decode()
        place = engine.conversations
        point("after-call")

        def record(turn: Turn) -> None:
            self.held = turn.hot.status == "paused"
            row = self._add(turn, calls.ONCE, at.position, Step(name=name, agent=""), body)
            quotas.count(engine, turn, stored)
            calls.add_done(turn.tx, c.session_id, row, body)
            results.record(turn.tx, engine.blobs, c.session_id, row["number"], row["epoch"], stored, None, None)
            turn.event("step.done", step=row["name"], component="agent", data={"bytes": stored.size})
            if told and isinstance(place, SqlPlace):
                admit = quotas.admitting(engine, c.session_id)
                place.append_with(turn.tx, c.session_id, told, turn.name, admit)

        engine.in_turn(c.session_id, record, [steps.holding(c)])
        if told and not isinstance(place, SqlPlace):
            quotas.count_elsewhere(engine, c.session_id, told)
            place.append(c.session_id, told)
        return doors.opened(engine.guard, serial.decode(data), c.session_id)

    # -- agents ------------------------------------------------------------------------------------------------------

    def call(self, agent: str, request: Any, name: str | None) -> Any:
        """See `Context.call`."""
        name = agent if name is None else name
        check_name(name)
        if isinstance(request, BaseModel):
            request = request.model_dump(mode="json")
        one = Step(name=name, agent=agent, request=request)
        check_agents([one], self._engine.registry)
        check_requests([one], self._engine.settings.max_request_bytes)
        mark = _mark(self._work.session_id, [name, agent, request])
        place = self.places.next(calls.CALL, name, mark)
        if in_loop():
            return asyncio.to_thread(self._called, place, one, mark)
        return self._called(place, one, mark)

    def _called(self, place: Place, one: Step, mark: str) -> Any:
        """Make a call, or see to it that it is made; gives what it gave. Raises CallFailed."""
        if place.known is None:
            mine = self._begin(place, one, mark)
            number = mine.claimed.number
            self._attempt(mine)
            if mine.recorded is not None:
                self._check()
                return doors.opened(self._engine.guard, serial.decode(mine.recorded), self._work.session_id)
        else:
            number = place.known.number
        wait = FIRST_LOOK
        while True:
            self._check()
            status, epoch, error, due = self._standing(number)
            if status == "done":
                return self._result(number, epoch)
            if status in steps.FINAL:
                raise CallFailed(f"call {one.name!r} of step {self._work.claimed.name} has {status}: {error}")
            work = self._take(number) if due and status == "ready" else None
            if work is not None:
                self._attempt(work)
                continue
            time.sleep(wait)
            wait = min(1.5 * wait, LONGEST_LOOK)

    def _attempt(self, work: Work) -> None:
        work.inline = True
        self._run(work)
        self._work.private = self._work.private or work.private

    def _begin(self, place: Place, one: Step, mark: str) -> Work:
        """Add the step of a call, as claimed by this worker."""
        engine, c = self._engine, self._work.claimed
        request = engine.guard.apply(one.request, doors.place_of(c.session_id))
        document = {"request": request, "literal": True, **place.noted(mark)}
        body = serial.encode(document, what=f"request of call {one.name!r}").decode()
        owner = engine.presence.claim()

        def begin(turn: Turn) -> Next:
            row = self._add(turn, calls.CALL, place.position, one, body)
            turn.hot.open_steps += 1
            claimed = _claimed(c.session_id, row, owner, body)
            calls.add_running(turn.tx, claimed, row, engine.settings.lease_seconds)
            return engine.taken(turn, claimed)

        return self._loaded(engine.in_turn(c.session_id, begin, [steps.holding(c)], synced=False))

    def _take(self, number: int) -> Work | None:
        """Claim a call that was begun and is ready again; None if another worker was quicker."""
        engine, c = self._engine, self._work.claimed
        owner = engine.presence.claim()

        def take(turn: Turn) -> Next | None:
            self._check_held(turn)
            claimed = steps.claim_this(turn.tx, c.session_id, number, owner, engine.settings.lease_seconds)
            return None if claimed is None else engine.taken(turn, claimed)

        following = engine.in_turn(c.session_id, take, [steps.holding(c)], synced=False)
        return None if following is None else self._loaded(following)

    def _loaded(self, following: Next) -> Work:
        work = following.work or self._engine.load(following.claimed)
        if work is None:  # what is asked for literally can always be read
            raise PlanError(f"the request of call {following.claimed.name} cannot be read")
        return work

    # -- rows --------------------------------------------------------------------------------------------------------

    def _add(self, turn: Turn, kind: str, position: int, one: Step, body: str) -> dict[str, Any]:
        """The row of a new call, noted for the checkpoint."""
        self._check_held(turn)
        c, hot = self._work.claimed, turn.hot
        rows = Rows(
            self._engine.registry,
            c.queue,
            hot.total_steps,
            epoch=hot.epoch_floor + 1,
            prefix=f"{c.name}/{position}-",
            phase=c.phase,
        )
        row = rows.add_call(one, body)
        row |= {"kind": kind, "member_of": c.number, "position": position, "attempts": 1}
        row |= {"status": "done", "result_epoch": row["epoch"]} if kind == calls.ONCE else {"status": "running"}
        for mine, new in zip(turn.change.added, rows.kept(), strict=True):
            mine.extend(new)
        hot.total_steps += 1
        return row

    def _check_held(self, turn: Turn) -> None:
        if not turn.found[0]:
            raise lost(self._work.claimed)

    def _standing(self, number: int) -> tuple[str, int | None, str | None, bool]:
        found = self._engine.database.read(lambda tx: calls.standing(tx, self._work.session_id, number))
        if found is None:
            raise Lost(f"session {self._work.session_id} was deleted or restored while a call ran")
        return found

    def _result(self, number: int, epoch: int | None = None) -> Any:
        """What a call gave, read now."""
        engine, session_id = self._engine, self._work.session_id

        def read(tx: Transaction) -> Any:
            at = epoch if epoch is not None else (calls.standing(tx, session_id, number) or (None, None))[1]
            return results.load(tx, engine.blobs, session_id, number, at)

        return doors.opened(engine.guard, engine.database.read(read), session_id)


def _claimed(session_id: str, row: dict[str, Any], owner: str, body: str) -> steps.Claimed:
    return steps.Claimed(
        session_id,
        row["number"],
        row["name"],
        row["agent"],
        row["epoch"],
        1,
        0,
        row["retries"],
        row["backoff"],
        row["timeout"],
        row["queue"],
        owner,
        row["phase"],
        row["kind"],
        body,
    )


def check_name(name: Any) -> None:
    """Raise PlanError for what cannot be the name of a call."""
    if not (isinstance(name, str) and 0 < len(name) <= MOST_CHARACTERS and name.isprintable()) or "/" in name:
        raise PlanError(
            f"{name!r:.200} is no name of a call; allowed: 1 to {MOST_CHARACTERS} printable characters without /"
        )


def in_loop() -> bool:
    """Whether an event loop runs in this thread: the agent is async."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _known(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Arguments by which a call can be told from another: those that are JSON."""
    try:
        serial.canonical([list(args), kwargs])
    except NotSerializable:
        return []
    return [list(args), kwargs]


def _mark(session_id: str, parts: list[Any]) -> str:
    """A hash by which a call is known again, keyed so that equal calls of two sessions do not show as such."""
    key = hashlib.blake2b(session_id.encode(), digest_size=16).digest()
    return hashlib.blake2b(serial.canonical(parts, "request"), key=key, digest_size=12).hexdigest()
