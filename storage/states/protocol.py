"""What a place for keyed state has to do. One's own: write a class with these methods, name it in the entry point group
`celeriac.state_backends`, and run `celeriac.testing.StateBackendSuite` on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ...errors import CeleriacError


class StateError(CeleriacError):
    """Keyed state cannot do what was asked; nothing was written."""


class StateConflict(StateError):
    """A value is no longer the version that was expected; nothing was written."""


@dataclass(slots=True)
class Entry:
    """A value as it is kept: JSON in UTF-8 or sealed bytes; its version; `meta`, a small JSON object as text, or ``.
    Not to be changed; it is not frozen, because making a frozen one takes as long as a look into a cache.

    `passing`: it has a time to live, so no copy of it should be kept.
    """

    body: bytes
    version: int
    meta: str = ""
    passing: bool = False


@dataclass(slots=True)
class Write:
    """One change of one key, not to be changed itself: `body` None deletes. `expected`: the version that is replaced,
    0 for "there is none", None for any. `ttl`: seconds until the value is gone, None for never. `bind`: gives the body
    sealed for its version; a backend that knows the version before it writes may put that in the place of `body`.
    """

    key: str
    body: bytes | None
    meta: str = ""
    expected: int | None = None
    ttl: float | None = None
    bind: Callable[[int], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose change it is, for the record of changes where a backend keeps one."""

    operation: str = ""
    correlation_id: str | None = None
    session_id: str | None = None
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do: keep values when the process ends (`durable`); let several processes see the same values
    (`shared`); write in the transaction that records a step, and have the scope of a session in its checkpoints
    (`with_steps`).
    """

    durable: bool
    shared: bool
    with_steps: bool = False


class Watch(Protocol):
    """Tells a reader that keeps copies which of them are old."""

    def look(self) -> set[tuple[str, str]] | None:
        """(scope, key) of what has changed since the last look; None where all may have.

        Each write that was acknowledged before the call is told of. The first look gives None.
        """

    def close(self) -> None:
        """Let go of its connection. A look after that may open one again, and gives None."""


@runtime_checkable
class Backend(Protocol):
    """A place for keyed state. Scopes and keys are text without null bytes; keys of different scopes never meet.

    Versions are positive and never used twice for one key, not even after it was deleted. All methods can be called
    from any thread.
    """

    @property
    def capabilities(self) -> Capabilities: ...

    def get(self, scope: str, keys: Sequence[str]) -> dict[str, Entry]:
        """The entries of those keys that exist, as of one moment; every acknowledged write is seen."""

    def put(self, scope: str, writes: Sequence[Write], origin: Origin | None = None) -> list[int]:
        """Make all these changes or none; gives a version for each, 0 for a deletion of what was not there.

        A deletion's version is higher than that of what it deleted. No key is named twice. Raises StateConflict.
        """

    def keys(self, scope: str, prefix: str = "", after: str = "", limit: int | None = None) -> list[str]:
        """The keys that start with `prefix` and come after `after`, in the order of their code points."""

    def clear(self, scope: str, origin: Origin | None = None) -> int:
        """Delete all keys of a scope; gives how many there were."""

    def watch(self) -> Watch | None:
        """What tells of changes by others; None where asking costs as much as reading."""

    def close(self) -> None:
        """Let go of files and connections. A use after that may open them again."""


@runtime_checkable
class Changing(Protocol):
    """A backend that can also hold a key while it is changed, so that nobody has to try again."""

    def change(
        self, scope: str, key: str, work: Callable[[Entry | None], Write], origin: Origin | None = None
    ) -> tuple[Write, int]:
        """Hand the present entry to `work` and make the change that it gives, with the key held; gives both the change
        and its version. `work` may be called again from the start, and must not use this backend.
        """


@runtime_checkable
class Listing(Protocol):
    """A backend that can also tell which scopes have values; runs of migrations over many scopes need it."""

    def scopes(self) -> list[str]:
        """The scopes that have values (or had, until their time was over), in the order of their code points."""


@runtime_checkable
class Lasting(Protocol):
    """A backend that can also tell how long values with a time to live have left; a branch takes them along then."""

    def left(self, scope: str, keys: Sequence[str]) -> dict[str, float]:
        """The seconds that values have left, of those keys that have one with a time to live."""


def conflict(scope: str, key: str, expected: int | None, found: int) -> StateConflict:
    """The error for a version that has moved on."""
    wanted = f"version {expected}" if expected else "no value"
    return StateConflict(
        f"{scope} {key!r} was expected to have {wanted} but has {f'version {found}' if found else 'none'}"
    )


def beyond(prefix: str) -> str | None:
    """The lowest text that comes after all texts with that prefix, by code points; None if there is none."""
    for end in range(len(prefix), 0, -1):
        code = ord(prefix[end - 1])
        if code < 0x10FFFF:
            following = 0xE000 if code == 0xD7FF else code + 1
            return prefix[: end - 1] + chr(following)
    return None


def selected(keys: Sequence[str], prefix: str, after: str, limit: int | None) -> Iterator[str]:
    """Of keys in order, those that `Backend.keys` gives."""
    left = len(keys) if limit is None else limit
    for key in keys:
        if left <= 0:
            return
        if key > after and key.startswith(prefix):
            left -= 1
            yield key
