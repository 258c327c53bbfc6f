"""What an agent keeps in a session from one step to the next: `PersistentAgentState`, in agents `ctx.memory`."""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from ...errors import NotSerializable, TooLarge
from ...storage import serial
from ...storage.agent_parts import FIELDS, Kept, part_of, place_of
from .merging import MISSING, merged

#: A key of one of the objects may have so many bytes, with a null byte as three: it is part of a database key.
MOST_KEY_BYTES: Final = 1024
#: And its value, as an item of the history, so many of JSON.
MOST_PART_BYTES: Final = 1 << 24


@dataclass(slots=True)
class Changes:
    """How a memory differs from what it was read as: parts by name, JSON text or None for what is gone."""

    parts: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)  # before, after
    #: Items of the history, by their numbers: changed ones, and (None) removed ones.
    items: dict[int, str | None] = field(default_factory=dict)
    appended: list[str] = field(default_factory=list)
    schema_version: str | None = None

    def __bool__(self) -> bool:
        return bool(self.parts or self.items or self.appended or self.schema_version is not None)


class PersistentAgentState(MutableMapping[str, Any]):
    """An agent's memory in one session.

    `history` is a list, `config`, `tools`, `execution` and `metadata` are objects, all JSON-able and yours to change;
    as a mapping it is `execution`: `memory["x"]` is `memory.execution["x"]`. `schema_version` is text of your choice,
    `created_at` and `updated_at` are when the memory was first and last recorded (UTC, aware), or None.

    Changes are recorded with the step's result, in its transaction. Where other steps of the agent changed it
    meanwhile, both are kept: what was appended to lists and histories is appended, numbers in `tools` are added up,
    objects are merged key by key; of two different values for one thing, the one recorded last stays.
    """

    def __init__(
        self,
        kept: Kept | None = None,
        *,
        agent: str = "",
        number: int = 0,
        load_history: Callable[[], dict[int, str]] = dict,
        save: Callable[[], None] = lambda: None,
        guarded: Callable[[Any], Any] = lambda value: value,
        opened: Callable[[Any], Any] = lambda value: value,
    ) -> None:
        kept = kept or Kept()
        self._agent = agent
        self._number = number
        self._load_history = load_history
        self._save = save
        self._guarded = guarded
        self._opened = opened
        #: How values with sealed fields are kept, by the JSON of what they hold: unchanged, they are not sealed anew.
        self._sealed: dict[str, str] = {}
        self._before = {name: text for name, text in kept.parts.items() if place_of(name)[0] in FIELDS}
        self._unfinished = self._value(kept.unfinished[number]) if number in kept.unfinished else None
        self._items: dict[int, str] | None = None
        self._history: list[Any] = []
        self.config: dict[str, Any] = {}
        self.tools: dict[str, Any] = {}
        self.execution: dict[str, Any] = {}
        self.metadata: dict[str, Any] = {}
        for name, text in self._before.items():
            where, key = place_of(name)
            getattr(self, where)[key] = self._value(text)
        self._schema_version = self.schema_version = kept.schema_version
        self.created_at = _moment(kept.created_at)
        self.updated_at = _moment(kept.updated_at)

    # -- what agents use ---------------------------------------------------------------------------------------------

    @property
    def history(self) -> list[Any]:
        """The conversation, oldest first. It is read when it is first asked for."""
        if self._items is None:
            self._items = self._load_history()
            self._history = [self._value(text) for text in self._items.values()]
        return self._history

    @history.setter
    def history(self, items: list[Any]) -> None:
        known = self.history
        if items is not known:
            self._history = list(items)

    def used(self, tool: str, **counts: float) -> None:
        """Count one call of a tool, and what else it took: `memory.used("search", seconds=0.4, errors=1)`."""
        stats = self.tools.setdefault(tool, {})
        for name, count in {"calls": 1, **counts}.items():
            stats[name] = stats.get(name, 0) + count

    def save(self) -> None:
        """Keep what there is so far in case this attempt does not end; the next one finds it in `unfinished`.

        Raises Lost if the step is no longer this worker's.
        """
        self._save()

    @property
    def unfinished(self) -> dict[str, Any] | None:
        """What an earlier attempt of this step left when it was given back, paused or saved, or None: {attempt,
        saved_at, history (what was appended), config, tools, execution, metadata}, each with what it had changed.

        It is not part of the memory, since this attempt may do the same again; `take_up` makes it so.
        """
        if self._unfinished is None:
            return None
        told = {key: self._unfinished[key] for key in ("attempt", "saved_at", "history")}
        told |= {where: {} for where in FIELDS}
        for name, change in self._unfinished["changes"].items():
            where, key = place_of(name)
            if "after" in change:
                told[where][key] = change["after"]
        return told

    def take_up(self) -> bool:
        """Make what an earlier attempt left part of this memory, to go on from there; False if there is nothing."""
        left, self._unfinished = self._unfinished, None
        if left is None:
            return False
        for name, change in left["changes"].items():
            where, key = place_of(name)
            inside: dict[str, Any] = getattr(self, where)
            before, after = change.get("before", MISSING), change.get("after", MISSING)
            found = merged(before, inside.get(key, MISSING), after, sums=where == "tools")
            if found is MISSING:
                inside.pop(key, None)
            else:
                inside[key] = found
        self.history.extend(left["history"])
        return True

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {
            "history": self.history,
            **{where: getattr(self, where) for where in FIELDS},
            "schema_version": self.schema_version,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "updated_at": self.updated_at.isoformat() if self.updated_at else None,
        }

    def __getitem__(self, key: str) -> Any:
        return self.execution[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.execution[key] = value

    def __delitem__(self, key: str) -> None:
        del self.execution[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.execution)

    def __len__(self) -> int:
        return len(self.execution)

    def __repr__(self) -> str:
        return f"<PersistentAgentState of {self._agent!r}: {len(self.execution)} keys>"

    # -- what the recording uses -------------------------------------------------------------------------------------

    def changes(self) -> Changes:
        """How it differs from what was read. Raises NotSerializable and TooLarge naming the part."""
        found = Changes()
        texts = dict(self._texts())
        for name in texts.keys() | self._before.keys():
            before, after = self._before.get(name), texts.get(name)
            if before != after:
                found.parts[name] = (before, after)
        if self._items is not None:
            texts_known = frozenset(self._items.values())
            history = [
                self._known_text(item, texts_known) or self._encoded(self._guarded(item), f"history[{n}]")
                for n, item in enumerate(list(self._history))
            ]
            found.items, found.appended = _history_changes(self._items, history)
        if self.schema_version != self._schema_version:
            if not isinstance(self.schema_version, str) or len(self.schema_version) > 100:
                raise NotSerializable(f"schema_version of the memory of agent {self._agent!r} must be text")
            found.schema_version = self.schema_version
        return found

    def _texts(self) -> Iterator[tuple[str, str]]:
        for where in FIELDS:
            inside = getattr(self, where)
            if not isinstance(inside, Mapping):
                raise NotSerializable(f"{where} in the memory of agent {self._agent!r} must be an object")
            for key, value in list(inside.items()):
                if not isinstance(key, str):
                    raise NotSerializable(
                        f"{where} in the memory of agent {self._agent!r}: keys are text, found {key!r}"
                    )
                name = part_of(where, key)
                known = self._before.get(name)
                text = self._known_text(value, (known,)) if known is not None else None
                yield (name, text) if text is not None else self._new_part(where, key, value)

    def _new_part(self, where: str, key: str, value: Any) -> tuple[str, str]:
        ((key, value),) = self._guarded({key: value}).items()  # the guard looks into keys too
        if len(part_of("", key).encode(errors="replace")) > MOST_KEY_BYTES:
            raise TooLarge(f"{where} in the memory of agent {self._agent!r}: a key has over {MOST_KEY_BYTES} bytes")
        return part_of(where, key), self._encoded(value, f"{where}.{key[:40]}")

    def _value(self, text: str) -> Any:
        """What a text stands for, with its sealed fields opened."""
        value = serial.decode(text)
        if '"$sealed"' in text:
            value = self._opened(value)
            self._sealed[serial.encode(value).decode()] = text
        return value

    def _known_text(self, value: Any, known: Container[str | None]) -> str | None:
        """The text that a value was read from, if it is still the same; that need not be checked and guarded again."""
        try:
            text = serial.loose(value)
        except Exception:  # no JSON: whoever writes it tells where
            return None
        text = self._sealed.get(text, text)
        return text if text in known else None

    def _encoded(self, value: Any, where: str) -> str:
        return serial.encode(value, f"memory of agent {self._agent}: {where}", MOST_PART_BYTES).decode()

    def left_by(self, attempt: int) -> str | None:
        """What an attempt that has not ended leaves, as JSON; None if it changed nothing."""
        changes = self.changes()
        if not changes:
            return None
        told: dict[str, Any] = {}
        for name, (before, after) in changes.parts.items():
            texts = {"before": before, "after": after}
            told[name] = {key: serial.decode(text) for key, text in texts.items() if text is not None}
        history = [serial.decode(text) for text in changes.appended]
        left = {"attempt": attempt, "saved_at": time.time(), "history": history, "changes": told}
        return serial.encode(left, what=f"memory of agent {self._agent}").decode()


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _history_changes(before: Mapping[int, str], now: list[str]) -> tuple[dict[int, str | None], list[str]]:
    """Which items of a history changed or went, by number, and which are new. Items that only moved up, because the
    oldest went, are not changed.
    """
    numbers, texts = list(before), list(before.values())
    cut = _cut(texts, now)
    changed: dict[int, str | None] = dict.fromkeys(numbers[:cut])
    for number, old, new in zip(numbers[cut:], texts[cut:], now, strict=False):
        if old != new:
            changed[number] = new
    kept = len(numbers) - cut
    changed.update(dict.fromkeys(numbers[cut + len(now) :]))
    return changed, now[kept:]


def _cut(before: list[str], now: list[str]) -> int:
    """How many of the oldest items went: the fewest after which what is left goes on in `now`; 0 if none fits."""
    if not now or not before or before[0] == now[0]:
        return 0
    for place, text in enumerate(before):
        if text == now[0] and before[place:] == now[: len(before) - place]:
            return place
    return 0
