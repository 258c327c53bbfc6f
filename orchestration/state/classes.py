"""State classes: what each one demands of a value before it is kept, and where it may lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from typing import Any, Protocol

from ...config.settings import STATE_CLASSES, StateClass
from ...errors import KeyMissing, SealBroken
from ...storage import serial
from ...storage.keys.sealing import KeyRing
from ...storage.states.protocol import Entry, StateError, Write
from ..schemas import Schemas


class Protects(Protocol):
    """The guard's policy, as state uses it: see `orchestration.guard.Policy`."""

    @property
    def active(self) -> bool: ...

    @property
    def seals(self) -> bool: ...

    def apply(self, value: Any, place: str) -> Any: ...

    def reveal(self, value: Any, place: str) -> Any: ...


class Rules:
    """Which class a value is of, by patterns (`*`, `?`, `[...]`) over `scope|key`; the first that matches counts."""

    def __init__(self, lines: Sequence[str] = ()) -> None:
        self._rules = [(re.compile(translate(pattern)), name) for pattern, name in map(parsed, lines)]
        self.of = lru_cache(maxsize=4096)(self._of) if self._rules else self._none

    def _of(self, scope: str, key: str) -> StateClass | None:
        """The class that a rule gives, or None."""
        place = f"{scope}|{key}"
        return next((name for pattern, name in self._rules if pattern.match(place)), None)

    @staticmethod
    def _none(_scope: str, _key: str) -> StateClass | None:
        return None


def parsed(line: str) -> tuple[str, StateClass]:
    """A rule, `pattern=class`. Raises StateError."""
    pattern, _, name = line.rpartition("=") if isinstance(line, str) else ("", "", "")
    if not pattern:
        raise StateError(f"{line!r} is no rule; write pattern=class, such as 'agent:*|password*=sensitive'")
    return pattern, checked(name)


def checked(name: str) -> StateClass:
    """The class of that name. Raises StateError listing those that there are."""
    if name not in STATE_CLASSES:
        raise StateError(f"{name!r} is no state class; there are: {', '.join(STATE_CLASSES)}")
    return name  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Values:
    """Turns values into what is kept, and back: checked against schemas, protected by the guard, sealed."""

    max_bytes: int
    keyring: KeyRing | None = None
    schemas: Schemas | None = None
    policy: Protects | None = None
    tenant: str = ""
    #: Whether values of all classes are sealed.
    all: bool = False

    def packed(self, scope: str, key: str, value: Any, class_: StateClass) -> tuple[bytes, str]:
        """What is kept of a value, and its meta. Raises NotSerializable, TooLarge, SchemaError and StateError."""
        about: dict[str, Any] = {} if class_ == "standard" else {"class": class_}
        if class_ == "external":
            if self.schemas is None:
                raise StateError(f"{scope} {key!r} is external, which needs a schema, and no schemas are in use")
            about["schema"] = self.schemas.check(scope, key, value, "strict")
        elif (
            class_ != "trusted"
            and self.schemas is not None
            and (schema := self.schemas.check(scope, key, value, "basic"))
        ):
            about["schema"] = schema
        if self.policy is not None and self.policy.active:
            value = self.policy.apply(value, _place(scope, key))
        body = serial.ready(value, self.max_bytes)
        if body is None:
            body = serial.encode(value, f"{scope} {key!r}", self.max_bytes)
        if class_ == "sensitive" or self.all:
            if self.keyring is None:
                raise StateError(
                    f"{scope} {key!r} is of class sensitive, and there is no key: set keys_file or CELERIAC_KEYS"
                )
            body = self.keyring.seal(body, place=_place(scope, key), tenant=self.tenant)
            about["sealed"] = True
        return body, serial.encode(about).decode() if about else ""

    def value(self, scope: str, key: str, entry: Entry) -> Any:
        """The value of an entry, in the newest version of its schema. Raises SealBroken, KeyMissing, SchemaError."""
        about: dict[str, Any] = serial.decode(entry.meta) if entry.meta else {}
        body = self._opened(scope, key, entry.body, entry.version) if about.get("sealed") else entry.body
        value = serial.decode(body)
        if self.policy is not None and self.policy.seals and b'"$sealed"' in body:
            value = self.policy.reveal(value, _place(scope, key))
        if self.schemas is not None and about.get("class") != "trusted":
            value = self.schemas.current(scope, key, value, about.get("schema", ""))[0]
        return value

    # -- what is sealed, and for which version -----------------------------------------------------------------------
    # The version of a value is given when it is written. Rows are sealed for it then (`bind`). It stays 0 in blobs, in
    # other backends, whose versions are known only once the value lies there, and in what was written before.

    def _opened(self, scope: str, key: str, body: bytes, version: int) -> bytes:
        if self.keyring is None:
            raise KeyMissing(f"{scope} {key!r} is sealed, and there is no key: set keys_file or CELERIAC_KEYS")
        place = _place(scope, key)
        try:
            return self.keyring.open(body, place=place, version=version, tenant=self.tenant)
        except SealBroken:
            return self.keyring.open(body, place=place, tenant=self.tenant)

    def binding(self, scope: str, key: str, body: bytes, meta: str, version: int = 0) -> Callable[[int], bytes] | None:
        """What seals a packed value for another version than the one that it was sealed for; None for one that is not
        sealed. Who puts an old body back needs it.
        """
        ring, place, tenant = self.keyring, _place(scope, key), self.tenant
        if ring is None or '"sealed"' not in meta:
            return None
        return lambda new: ring.seal(self._opened(scope, key, body, version), place=place, version=new, tenant=tenant)

    def plain(self, scope: str, key: str, entry: Entry) -> bytes:
        """The JSON of an entry, opened if it is sealed."""
        sealed = '"sealed"' in entry.meta
        return self._opened(scope, key, entry.body, entry.version) if sealed else entry.body

    def renewed(self, scope: str, key: str, entry: Entry, change: Callable[[str], str] = str) -> Write | None:
        """An entry as it would be written now: with `change` made to its JSON, and sealed where all is. None where that
        is how it lies.
        """
        about: dict[str, Any] = serial.decode(entry.meta) if entry.meta else {}
        sealed, text = bool(about.get("sealed")), self.plain(scope, key, entry).decode()
        after = change(text)
        if after == text and (sealed or not self.all):
            return None
        body, meta = after.encode(), entry.meta
        if self.keyring is not None and (sealed or self.all):
            body = self.keyring.seal(body, place=_place(scope, key), tenant=self.tenant)
            meta = serial.encode({**about, "sealed": True}).decode()
        return Write(key, body, meta, bind=self.binding(scope, key, body, meta))


def class_of(entry: Entry) -> StateClass:
    """The class that an entry was written with."""
    return checked(serial.decode(entry.meta).get("class", "standard")) if entry.meta else "standard"


def _place(scope: str, key: str) -> str:
    """What sealed bytes are bound to: neither scopes nor keys hold a null byte."""
    return f"state {scope}\0{key}"


__all__ = ["Protects", "Rules", "StateClass", "Values", "checked", "class_of", "parsed"]
