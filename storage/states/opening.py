"""Opening the place for keyed state that a URL names: ours, or one of an installed package."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from ...config.urls import for_engine, masked
from ...errors import SettingsError
from ..blobs import BlobStore
from ..database import Database
from .protocol import Backend

#: Entry points of other packages: the name is the URL's scheme, the object takes the URL and gives a `Backend`.
GROUP = "celeriac.state_backends"


def open_backend(url: str, database: Database, blobs: BlobStore, inline: int) -> Backend:
    """The backend of a URL; an empty one means the database of the sessions. Nothing is connected to yet.

    Raises SettingsError for a URL that no backend is known for, listing those that are.
    """
    if not url:
        from .sql import SqlBackend

        return SqlBackend(database, blobs, inline, with_steps=True)
    scheme, _, rest = url.partition(":")
    if scheme in ("sqlite", "postgresql", "postgresql+psycopg"):
        return _other_database(url, blobs, inline)
    if scheme in _OURS:
        return _OURS[scheme](url, rest)
    for entry in entry_points(group=GROUP, name=scheme):
        made: Backend = entry.load()(url)
        if not isinstance(made, Backend):
            raise SettingsError(f"state_url: entry point {entry.value} of {GROUP} gave no Backend but {made!r}")
        return made
    raise SettingsError(f"state_url = {masked(url)!r}: no backend is known for it; there are: {', '.join(known())}")


def known() -> list[str]:
    """What a `state_url` can be."""
    ours = ["'' (the database of the sessions)", *_FORMS]
    return ours + sorted({f"{entry.name}: ({entry.value})" for entry in entry_points(group=GROUP)})


_FORMS = (
    "memory:",
    "file:///folder",
    "redis://host:port/number",
    "rediss://",
    "unix://",
    "rocksdb:///folder",
    "sqlite:///file",
    "postgresql://",
)


def _memory(url: str, rest: str) -> Backend:
    from .memory import MemoryBackend

    if rest.strip("/"):
        raise SettingsError(f"state_url = {url!r}: memory has no place; write memory:")
    return MemoryBackend()


def _folder(url: str, rest: str) -> Path:
    if not rest.startswith("//") or len(rest) < 3:
        raise SettingsError(f"state_url = {url!r} names no folder; write {url.partition(':')[0]}:///folder")
    return Path(rest[2:]).expanduser().absolute()


def _files(url: str, rest: str) -> Backend:
    from .files import FileBackend

    return FileBackend(_folder(url, rest))


def _rocksdb(url: str, rest: str) -> Backend:
    from .rocksdb import RocksBackend

    return RocksBackend(_folder(url, rest))


def _redis(url: str, rest: str) -> Backend:
    from .redis import RedisBackend

    return RedisBackend(url)


_OURS: dict[str, Callable[[str, str], Backend]] = {
    "memory": _memory,
    "file": _files,
    "rocksdb": _rocksdb,
    "redis": _redis,
    "rediss": _redis,
    "unix": _redis,
}


def _other_database(url: str, blobs: BlobStore, inline: int) -> Backend:
    from .. import schema
    from .sql import SqlBackend

    try:
        database = Database(for_engine(url))
    except ValueError as fault:
        raise SettingsError(f"state_url = {masked(url)!r} is not allowed; allowed: {fault}") from None
    schema.ensure(database)
    return SqlBackend(database, blobs, inline, with_steps=False)
