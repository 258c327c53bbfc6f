"""A branch takes its parent's keyed state along, where that lives outside of the database: it is copied, to what will
be the branch's own and to what will be the base of merges, before there is a branch.

What is being made is noted with the parent first, so that what a killed process has copied goes again: when the parent
is branched the next time, an hour later or more, or is deleted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from ...errors import CeleriacError, SessionError, SessionNotFound
from ...storage.database import Transaction
from ..turn import Turn
from . import states
from .apart import BASE, Own
from .carrying import check_open
from .notes import MAKING, note, noted

if TYPE_CHECKING:
    from ..engine import Engine

T = TypeVar("T")
#: Who makes a branch for so long, in seconds, was killed, or is too late.
_LATE: Final = 3600.0


@dataclass(slots=True)
class Taken:
    """What of a parent's state a branch has: how many keys, and how many stay behind because nobody knows when they
    end. `noted`: something of it is there, and has to be finished.
    """

    keys: int = 0
    left: int = 0
    noted: bool = False

    def told(self) -> dict[str, Any]:
        """For the event of the branch."""
        return {"state": {"keys": self.keys, "left": self.left}} if self.noted else {}


def with_state(engine: Engine, parent: str, child: str, checkpoint: bool, make: Callable[[Taken], T]) -> T:
    """Copy the state of a session for a branch, and make it: `make` runs the transaction that does, and calls `finish`
    in it. Gives what it gives.

    Raises SessionError for a branch at a checkpoint where there is state: what it was then is not known.
    """
    if states.is_kept(engine):
        return make(Taken())
    tenant = engine.database.read(lambda tx: engine.owner_of(tx, parent))[0]
    source = Own(engine, parent, tenant)
    if not _has_state(source):
        return make(Taken())
    if checkpoint:
        raise SessionError(
            f"session {parent} cannot be branched at a checkpoint: its keyed state lives outside of the database "
            "(state_url), where nobody knows what it was then; branch at the number of an entry, with the state as it "
            "is now, or clear the scope first"
        )
    _begin(engine, parent, child, tenant)
    try:
        return make(_copy(source, Own(engine, child, tenant)))
    except BaseException:
        give_up(engine, parent, child, tenant)
        raise


def _has_state(source: Own) -> bool:
    return any(found.plain or found.unknown for _, found in source.parts(source.names()))


def _copy(source: Own, target: Own) -> Taken:
    taken = Taken(noted=True)
    for _, found in source.parts(source.names()):
        plain = found.plain
        taken.keys += len(plain)
        taken.left += len(found.unknown)
        if plain:
            target.put_kept([target.keep(BASE, key, one) for key, one in plain.items()])
            target.put([target.write(key, one) for key, one in plain.items()], "branch")
    return taken


def _begin(engine: Engine, parent: str, child: str, tenant: str) -> None:
    """Note that a branch is being made, and take away what was copied for others that never came to be."""

    def work(turn: Turn) -> list[str]:
        check_open(turn, "and cannot be changed; allowed: nothing")
        moment, making = turn.tx.now(), noted(turn.tx, parent, MAKING) or {}
        late = [one for one, began in making.items() if began < moment - _LATE]
        note(turn.tx, parent, MAKING, {**making, **dict.fromkeys(late, 0.0), child: moment})
        return late

    for late in engine.in_turn(parent, work):
        give_up(engine, parent, late, tenant)


def finish(tx: Transaction, parent: str, child: str, taken: Taken) -> None:
    """Note, in the transaction that makes the branch, that it is made. Raises SessionError where that is too late."""
    if not taken.noted:
        return
    making = noted(tx, parent, MAKING) or {}
    if not making.pop(child, 0.0):
        raise SessionError(f"session {parent} was not branched: copying its keyed state took over an hour")
    note(tx, parent, MAKING, making)


def give_up(engine: Engine, parent: str, child: str, tenant: str) -> None:
    """Take away what was copied for a branch that is not made. What cannot be reached is left for the next one."""

    def work(turn: Turn) -> bool:
        making = noted(turn.tx, parent, MAKING) or {}
        if child in making:
            note(turn.tx, parent, MAKING, {**making, child: 0.0})
        return child in making

    def done(turn: Turn) -> None:
        making = noted(turn.tx, parent, MAKING) or {}
        note(turn.tx, parent, MAKING, {one: began for one, began in making.items() if one != child})

    try:
        if engine.in_turn(parent, work):  # else it is made after all; from here on nobody makes it
            Own(engine, child, tenant).forget()
            engine.in_turn(parent, done)
    except SessionNotFound:  # deleted meanwhile, with what was there then
        Own(engine, child, tenant).forget()
    except CeleriacError:
        return


def forget(engine: Engine, tx: Transaction, session_id: str, tenant: str) -> None:
    """Delete what was copied for branches of a session that never came to be, once it is deleted."""
    if states.is_kept(engine):
        return
    for child in noted(tx, session_id, MAKING) or {}:
        tx.after_commit.append(Own(engine, child, tenant).forget)
