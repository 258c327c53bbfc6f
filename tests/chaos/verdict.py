"""Counting what became of everything that was asked for, and checking what must hold: the ledger beside the database.

The names of the counters are those of RabbitMQ's Jepsen test. The invariants:
I1 each step is in one legal state; I2 no step starts before what it waits for; I3 a step has one lease; I4 nothing is
written under an old epoch; I5 events have no gap; I6 no ready step is left that nobody takes; I7 no more attempts than
allowed; I8 a session has ended if and only if its steps have; I9 the database is whole; I10 no blob is missing, damaged
or half written. I1, I5, I8, I9 and I10 are checked by `invariants`, the others here.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import invariants
from sqlalchemy import text

from celeriac.errors import CeleriacError
from celeriac.orchestration.engine import Engine
from celeriac.orchestration.states import SESSION_ENDED
from chaos.ledger import Ledger, Line

#: Kinds of steps that have a result of their own.
WITH_RESULT = ("agent", "call", "once")


class Broken(AssertionError):
    """Something that is promised did not hold."""


@dataclass(slots=True)
class Counts:
    """What became of the sessions and steps of one run."""

    attempted: int = 0
    acknowledged: int = 0
    unknown: int = 0  # the answer to the start was an error
    ok: int = 0  # acknowledged and ended
    lost: int = 0  # acknowledged and not ended when the time was up
    recovered: int = 0  # the answer was an error, yet it is there
    unexpected: int = 0  # there, though nobody asked for it
    steps: int = 0
    duplicated: int = 0  # steps whose completion was recorded twice
    extra_attempts: int = 0
    recoveries: list[float] = field(default_factory=list)  # seconds


class Tables:
    """The rows of a database at rest, read with SQL."""

    def __init__(self, engine: Engine) -> None:
        with engine.database.engine.connect() as connection:

            def rows(sql: str) -> list[Any]:
                return list(connection.execute(text(sql)))

            self.sessions = rows("SELECT id, key, status FROM sessions")
            self.steps = rows("SELECT session_id, number, name, kind, status, attempts, claim, result_epoch FROM steps")
            self.edges = rows("SELECT session_id, source, target FROM edges")
            self.results = rows("SELECT session_id, number, epoch, body FROM results")
            self.events = rows("SELECT session_id, type, step, at FROM events ORDER BY session_id, seq")


def count(tables: Tables, intents: Iterable[tuple[str, str | None]], ledger: Ledger) -> Counts:
    """`intents` are (key, session id that was answered or None)."""
    by_key = {key: (id_, status) for id_, key, status in tables.sessions}
    counts = Counts(steps=len(tables.steps))
    asked = set()
    for key, answer in intents:
        counts.attempted += 1
        asked.add(key)
        known = by_key.get(key)
        ended = known is not None and known[1] in SESSION_ENDED
        if answer is None:
            counts.unknown += 1
            counts.recovered += known is not None
            counts.lost += known is not None and not ended
        else:
            counts.acknowledged += 1
            counts.ok += ended
            counts.lost += not ended
    counts.unexpected = len(by_key.keys() - asked)
    counts.unexpected += len({line.session_id for line in ledger.lines()} - {id_ for id_, _ in by_key.values()})
    done = Counter((e.session_id, e.step) for e in tables.events if e.type == "step.done")
    results = Counter((r.session_id, r.number) for r in tables.results)
    counts.duplicated = sum(n > 1 for n in done.values()) + sum(n > 1 for n in results.values())
    starts = ledger.by_key("start")
    counts.extra_attempts = sum(len(lines) - 1 for lines in starts.values())
    return counts


def violations(tables: Tables, ledger: Ledger, cap: int) -> list[str]:
    """What of I2, I3, I4, I6 and I7 does not hold, and completions that the ledger knows nothing of."""
    return [
        *_order(tables, ledger),
        *_leases(tables),
        *_epochs(tables),
        *_left_over(tables),
        *_attempts(tables, ledger, cap),
        *_completions(tables, ledger),
    ]


def violations_of_snapshot(tables: Tables, ledger: Ledger) -> list[str]:
    """As `violations`, of a state in the midst of the work: I2, I3 and I4, and completions."""
    return [*_order(tables, ledger), *_leases(tables), *_epochs(tables), *_completions(tables, ledger)]


def _order(tables: Tables, ledger: Ledger) -> Iterable[str]:
    """I2: nothing starts before all that it waits for has had its effect."""
    starts, effects = ledger.by_key("start"), ledger.by_key("effect")
    agents = {(s.session_id, s.number) for s in tables.steps if s.kind == "agent"}
    for session_id, source, target in tables.edges:
        begun = starts.get(f"{session_id}/{target}")
        if begun and (session_id, source) in agents:
            had = effects.get(f"{session_id}/{source}")
            if not had or min(had, key=_time).monotonic > min(begun, key=_time).monotonic:
                yield f"I2: step {target} of {session_id} started before step {source} had its effect"


def _time(line: Line) -> float:
    return line.monotonic


def _leases(tables: Tables) -> Iterable[str]:
    """I3: a lease belongs to a running step and to one claim."""
    claims = Counter(s.claim for s in tables.steps if s.status == "running")
    for claim, n in claims.items():
        if n > 1 or claim is None:
            yield f"I3: claim {claim} runs {n} steps"


def _epochs(tables: Tables) -> Iterable[str]:
    """I4: a result counts only under the epoch that its step had, and there is no other of that step."""
    recorded: dict[tuple[str, int], list[int]] = defaultdict(list)
    for row in tables.results:
        recorded[row.session_id, row.number].append(row.epoch)
    for s in tables.steps:
        epochs = recorded.get((s.session_id, s.number), [])
        if s.kind in WITH_RESULT and epochs != ([s.result_epoch] if s.result_epoch is not None else []):
            yield f"I4: step {s.name} of {s.session_id} counts the result of epoch {s.result_epoch}; recorded: {epochs}"


def _left_over(tables: Tables) -> Iterable[str]:
    """I6, at rest: no ready step is left that nobody takes."""
    active = {id_ for id_, _, status in tables.sessions if status == "active"}
    for s in tables.steps:
        if s.session_id in active and s.status == "ready":
            yield f"I6: step {s.name} of {s.session_id} is ready and nobody takes it"


def _attempts(tables: Tables, ledger: Ledger, cap: int) -> Iterable[str]:
    """I7: no more attempts than allowed; and each attempt starts once."""
    for s in tables.steps:
        if s.attempts > cap:
            yield f"I7: step {s.name} of {s.session_id} was attempted {s.attempts} times"
    for key, lines in ledger.by_key("start").items():
        numbers = [line.attempt for line in lines]
        if len(numbers) != len(set(numbers)):
            yield f"attempts of {key} started twice: {numbers}"


def _completions(tables: Tables, ledger: Ledger) -> Iterable[str]:
    """Every recorded completion is that of an attempt that went to its end, and every completed session has all of
    them. A call that was recorded is not made in a later attempt.
    """
    ended = {(line.key, line.attempt) for line in ledger.lines("end")}
    effects = {key: [line.attempt for line in lines] for key, lines in ledger.by_key("effect").items()}
    for row in tables.results:
        body = json.loads(row.body or "{}")
        attempt = body.get("attempt")
        if attempt is not None and (f"{row.session_id}/{row.number}", attempt) not in ended:
            yield f"step {row.number} of {row.session_id}: attempt {attempt} is recorded but did not end"
        again = [n for n in effects.get(body.get("call"), []) if n > body["made"]]
        if again:
            yield f"call {body['call']} was recorded in attempt {body['made']} and made again in {again}"
    recorded = {(row.session_id, row.number) for row in tables.results}
    for s in tables.steps:
        if s.status == "done" and s.kind in WITH_RESULT and (s.session_id, s.number) not in recorded:
            yield f"step {s.name} of {s.session_id} is done without a result"


#: Every B-tree index against its table.
_AMCHECK = """
SELECT bt_index_check(index => c.oid, heapallindexed => true)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE c.relnamespace = 'public'::regnamespace AND c.relam = (SELECT oid FROM pg_am WHERE amname = 'btree')
"""


def check_database(engine: Engine) -> None:
    """I1, I5, I8, I9, I10. Raises AssertionError."""
    engine.blobs.sweep_temporary(0)  # what killed writers leave behind is for the sweep
    try:
        invariants.check(engine)
    except CeleriacError as fault:
        raise Broken(f"the database cannot be read whole: {fault}") from fault
    if not engine.database.is_sqlite:
        with engine.database.engine.connect() as connection:
            connection.execute(text("CREATE EXTENSION IF NOT EXISTS amcheck"))
            connection.execute(text(_AMCHECK))
