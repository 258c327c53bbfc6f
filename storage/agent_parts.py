"""What agents keep from one step of a session to the next, in parts: a small change of a large memory writes little.

A part is a key of one of the objects (`config/KEY`, `tools/KEY`, `execution/KEY`, `metadata/KEY`), an item of the
history (`history/NUMBER`), or what an attempt of a step left that has not ended (`unfinished/STEP`). A row of
`agent_states` says when the memory was written, its schema version, and the number of the last item of its history.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import Column, Table, Text, bindparam, delete, insert, or_, select, update

from . import deltas, serial
from .database import Query, Transaction, now
from .tables import agent_states, metadata

FIELDS: Final = ("config", "tools", "execution", "metadata")
HISTORY: Final = "history"
UNFINISHED: Final = "unfinished"
FIRST_VERSION: Final = "1.0.0"
#: Parts of more characters than this are written into checkpoints as differences.
_WORTH_A_DELTA: Final = 256
#: So many parts are looked up at once; where it takes more than so many looks, all are read.
_AT_ONCE: Final = 8
_LOOKS: Final = 5

agent_parts = Table(
    "agent_parts",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("agent", Text, primary_key=True),
    # ordered by code points on every database
    Column("part", Text().with_variant(Text(collation="C"), "postgresql"), primary_key=True),
    Column("body", Text, nullable=False),
)


def part_of(where: str, key: str) -> str:
    """The name of a part. A null byte, which no database takes, is written %00."""
    return f"{where}/{key.replace('%', '%25').replace(chr(0), '%00')}"


def place_of(part: str) -> tuple[str, str]:
    """Field and key of a part's name."""
    where, _, key = part.partition("/")
    return where, key.replace("%00", "\0").replace("%25", "%")


def item_of(number: int) -> str:
    """The name of an item of the history, by its number."""
    return f"{HISTORY}/{number:012d}"


@dataclass(slots=True)
class Kept:
    """An agent's memory as it was read, but for its history. Times are seconds since 1970, bodies JSON text."""

    parts: dict[str, str] = field(default_factory=dict)
    #: By number of the step.
    unfinished: dict[int, str] = field(default_factory=dict)
    schema_version: str = FIRST_VERSION
    created_at: float | None = None
    updated_at: float | None = None


@dataclass(slots=True)
class Header:
    """What the row of a memory says: its schema version, and the number of the last item of its history."""

    schema_version: str = FIRST_VERSION
    last: int = 0

    @classmethod
    def read(cls, body: str | None) -> Header:
        found = serial.decode(body) if body else {}
        return cls(found.get("schema_version", FIRST_VERSION), found.get("last", 0))

    @property
    def body(self) -> str:
        return serial.encode({"schema_version": self.schema_version, "last": self.last}).decode()


_BODY: Final = "agent_parts.body"
_s, _p = agent_states.c, agent_parts.c
_row = (_s.session_id == bindparam("session"), _s.agent == bindparam("named"))
_mine = (_p.session_id == bindparam("session"), _p.agent == bindparam("named"))
#: What comes after all names of items: the character after the slash.
_BEYOND: Final = f"{HISTORY}0"

_HEADER = Query(select(_s.body, _s.created_at, _s.updated_at).where(*_row))
_REST = Query(
    select(_p.part, _p.body).where(*_mine, or_(_p.part < f"{HISTORY}/", _p.part >= _BEYOND)).order_by(_p.part)
)
_ITEMS = Query(select(_p.part, _p.body).where(*_mine, _p.part > f"{HISTORY}/", _p.part < _BEYOND).order_by(_p.part))
_ALL = Query(select(_p.part, _p.body).where(*_mine))
_SOME = Query(select(_p.part, _p.body).where(*_mine, _p.part.in_([bindparam(f"p{n}") for n in range(_AT_ONCE)])))
_TOUCH = Query(update(agent_states).where(*_row).values(version=_s.version + 1, updated_at=now()))
_REWRITE = Query(
    update(agent_states).where(*_row).values(body=bindparam("text"), version=_s.version + 1, updated_at=now())
)
_CREATE = Query(
    insert(agent_states).values(
        session_id=bindparam("session"),
        agent=bindparam("named"),
        body=bindparam("text"),
        version=1,
        created_at=now(),
        updated_at=now(),
    )
)
_BORN = Query(update(agent_states).where(*_row).values(created_at=bindparam("moment")))
_ADD = Query(
    insert(agent_parts).values(
        session_id=bindparam("session"), agent=bindparam("named"), part=bindparam("which"), body=bindparam("text")
    )
)
_CHANGE = Query(update(agent_parts).where(*_mine, _p.part == bindparam("which")).values(body=bindparam("text")))
_REMOVE = Query(delete(agent_parts).where(*_mine, _p.part == bindparam("which")))
_HEADERS_OF = Query(select(_s.agent, _s.body).where(_s.session_id == bindparam("session")).order_by(_s.agent))
_PARTS_OF = Query(
    select(_p.agent, _p.part, _p.body).where(_p.session_id == bindparam("session")).order_by(_p.agent, _p.part)
)
_CLEAR = (
    Query(delete(agent_states).where(_s.session_id == bindparam("session"))),
    Query(delete(agent_parts).where(_p.session_id == bindparam("session"))),
)


def read(tx: Transaction, session_id: str, agent: str) -> Kept:
    """An agent's memory in a session, but for its history."""
    row = tx.row(_HEADER, session=session_id, named=agent)
    if row is None:
        return Kept()
    kept = Kept({}, {}, Header.read(row[0]).schema_version, row[1], row[2])
    for part, text in tx.rows(_REST, session=session_id, named=agent):
        body = tx.open(text, _BODY, session_id, agent, part)
        where, key = place_of(part)
        if where == UNFINISHED:
            kept.unfinished[int(key)] = body
        else:
            kept.parts[part] = body
    return kept


def history(tx: Transaction, session_id: str, agent: str) -> dict[int, str]:
    """The items of an agent's history (JSON text) by their numbers, in order."""
    found = _opened(tx, session_id, agent, tx.rows(_ITEMS, session=session_id, named=agent))
    return {int(part.partition("/")[2]): body for part, body in found.items()}


def _opened(tx: Transaction, session_id: str, agent: str, rows: Iterable[Sequence[str]]) -> dict[str, str]:
    return {part: tx.open(body, _BODY, session_id, agent, part) for part, body in rows}


def some(tx: Transaction, session_id: str, agent: str, names: Iterable[str]) -> dict[str, str]:
    """Those of the named parts that there are."""
    wanted = list(names)
    if len(wanted) > _LOOKS * _AT_ONCE:
        inside = set(wanted)
        rows = [row for row in tx.rows(_ALL, session=session_id, named=agent) if row[0] in inside]
        return _opened(tx, session_id, agent, rows)
    found: dict[str, str] = {}
    for start in range(0, len(wanted), _AT_ONCE):
        chunk = wanted[start : start + _AT_ONCE]
        chunk += [chunk[-1]] * (_AT_ONCE - len(chunk))
        rows = tx.rows(_SOME, session=session_id, named=agent, **{f"p{n}": one for n, one in enumerate(chunk)})
        found |= _opened(tx, session_id, agent, rows)
    return found


def header(tx: Transaction, session_id: str, agent: str) -> Header | None:
    """The row of an agent's memory, or None."""
    row = tx.row(_HEADER, session=session_id, named=agent)
    return None if row is None else Header.read(row[0])


def write(
    tx: Transaction,
    session_id: str,
    agent: str,
    known: Mapping[str, str],
    changed: Mapping[str, str | None],
    head: Header | None,
) -> dict[str, bytes | str]:
    """Write parts (None: they go) of a session whose row is locked; gives what a checkpoint has to know.

    `known` are the present bodies of those of them that there are; `head` is the new header, None where it stays.
    """
    named = {"session": session_id, "named": agent}
    told: dict[str, bytes | str] = {}
    touched = tx.run(_TOUCH, **named) if head is None else tx.run(_REWRITE, **named, text=head.body)
    if not touched:
        head = head or Header()
        tx.run(_CREATE, **named, text=head.body)
    if head is not None:
        told[_kept_as(agent, "")] = head.body
    rows: dict[Query, list[dict[str, Any]]] = {_ADD: [], _CHANGE: [], _REMOVE: []}
    for part, body in changed.items():
        before = known.get(part)
        if body is None:
            rows[_REMOVE].append({**named, "which": part})
        else:
            text = tx.seal(body, _BODY, session_id, agent, part)
            rows[_ADD if before is None else _CHANGE].append({**named, "which": part, "text": text})
        told[_kept_as(agent, part)] = _told(before, body)
    for query, values in rows.items():
        if values:
            tx.later(query, values)
    return told


def _told(before: str | None, body: str | None) -> bytes | str:
    if body is None:
        return ""
    if before is None or len(body) <= _WORTH_A_DELTA:
        return body
    return deltas.diff(before.encode(), body.encode())


def forget_unfinished(tx: Transaction, session_id: str, agent: str, number: int) -> dict[str, bytes | str]:
    """Drop what earlier attempts of a step left, if they did; gives what a checkpoint has to know."""
    part = f"{UNFINISHED}/{number}"
    gone = tx.run(_REMOVE, session=session_id, named=agent, which=part)
    return {_kept_as(agent, part): ""} if gone else {}


# -- as checkpoints keep them ------------------------------------------------------------------------------------------


def _kept_as(agent: str, part: str) -> str:
    """The name of a part in a checkpoint; the header is the part without a name. No agent's name has a null byte."""
    return f"{agent}\0{part}"


def all_of(tx: Transaction, session_id: str) -> dict[str, str]:
    """The memories of all agents of a session as checkpoints keep them: JSON text by agent and part."""
    found = {_kept_as(agent, ""): body for agent, body in tx.rows(_HEADERS_OF, session=session_id)}
    for agent, part, body in tx.rows(_PARTS_OF, session=session_id):
        found[_kept_as(agent, part)] = tx.open(body, _BODY, session_id, agent, part)
    return found


_TIMES_OF = Query(select(_s.agent, _s.created_at, _s.updated_at).where(_s.session_id == bindparam("session")))


def memories(tx: Transaction, session_id: str) -> dict[str, dict[str, Any]]:
    """The memories of all agents of a session for people, with `created_at` and `updated_at` (seconds since 1970)."""
    found = shown(all_of(tx, session_id))
    for agent, created_at, updated_at in tx.rows(_TIMES_OF, session=session_id):
        if agent in found:  # else it was recorded just now
            found[agent] |= {"created_at": created_at, "updated_at": updated_at}
    return found


def replace_all(tx: Transaction, session_id: str, bodies: Mapping[str, str]) -> None:
    """Put these memories, as `all_of` gives them, in place of all that the session's agents keep. Those that are there
    stay as old as they are.
    """
    born = {agent: created_at for agent, created_at, _ in tx.rows(_TIMES_OF, session=session_id)}
    for query in _CLEAR:
        tx.run(query, session=session_id)
    split = [(*name.split("\0", 1), body) for name, body in _in_parts(bodies).items()]
    heads = [{"session": session_id, "named": agent, "text": body} for agent, part, body in split if not part]
    parts = [
        {"session": session_id, "named": agent, "which": part, "text": tx.seal(body, _BODY, session_id, agent, part)}
        for agent, part, body in split
        if part
    ]
    tx.many(_CREATE, heads)
    known = [head for head in heads if head["named"] in born]
    tx.many(_BORN, [{"session": session_id, "named": h["named"], "moment": born[h["named"]]} for h in known])
    tx.many(_ADD, parts)


def rewrite(tx: Transaction, session_id: str, bodies: Mapping[str, str]) -> None:
    """Write parts, as `all_of` gives them, in the place of those of their names."""
    for name, body in bodies.items():
        agent, part = name.split("\0", 1)
        if part:
            text = tx.seal(body, _BODY, session_id, agent, part)
            tx.run(_CHANGE, session=session_id, named=agent, which=part, text=text)


def _in_parts(bodies: Mapping[str, str]) -> dict[str, str]:
    """With those of older checkpoints, whose agents had one plain object each, brought into parts."""
    found = {}
    for name, body in bodies.items():
        if "\0" in name:
            found[name] = body
            continue
        found[_kept_as(name, "")] = Header().body
        for key, value in serial.decode(body).items():
            found[_kept_as(name, part_of("execution", key))] = serial.encode(value).decode()
    return found


def shown(bodies: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Memories, as `all_of` gives them, for people: {agent: {history, config, tools, execution, metadata, ...}}."""
    found: dict[str, dict[str, Any]] = {}
    for name, body in sorted(_in_parts(bodies).items()):
        agent, part = name.split("\0", 1)
        memory = found.setdefault(agent, {HISTORY: [], **{where: {} for where in FIELDS}})
        where, key = place_of(part)
        if not part:
            memory["schema_version"] = Header.read(body).schema_version
        elif where == HISTORY:
            memory[HISTORY].append(serial.decode(body))
        elif where == UNFINISHED:
            memory.setdefault(UNFINISHED, {})[key] = serial.decode(body)
        else:
            memory[where][key] = serial.decode(body)
    return found
