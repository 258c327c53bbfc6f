"""The looks that `doctor` takes, each with a short time limit, none of which changes anything."""

from __future__ import annotations

import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CeleriacError
from . import known_faults
from .doctor import Finding
from .faults import explained, first_line

if TYPE_CHECKING:
    from ..config import Settings
    from ..storage.database import Database

#: A server has so many seconds to answer.
ANSWER_SECONDS = 3.0
#: The disk is written to for so many seconds.
DISK_SECONDS = 0.3
#: A job of maintenance that is so many periods late is not run by anybody.
LATE_PERIODS = 3
#: The oldest PostgreSQL that its makers still look after.
POSTGRES_LEAST = 14


def versions(settings: Settings) -> list[Finding]:
    """Python, SQLite, Celery and what else has versions with known faults."""
    found = [Finding("python", *known_faults.python())]
    found += [Finding(name, *seen) for name in known_faults.PACKAGES if (seen := known_faults.package(name))]
    if settings.database.startswith("sqlite"):
        found.append(_sqlite())
    for extra, modules, wanted in (
        ("llm", ("pydantic_ai",), bool(settings.model)),
        ("pdf", ("pypdf", "typst"), True),
    ):
        missing = [name for name in modules if find_spec(name) is None]
        if missing and wanted:
            found.append(
                Finding(extra, "warn", f"{', '.join(missing)} not installed", f"pip install 'celeriac[{extra}]'")
            )
    return found


def _sqlite() -> Finding:
    from ..storage import sqlite

    seen = sqlite.describe()
    shown = f"{seen['version']} by {seen['module']}, journal mode {seen['journal_mode']}"
    if seen["sound"]:
        return Finding("sqlite", "ok", shown)
    return Finding(
        "sqlite",
        "warn",
        shown,
        "it has the WAL-reset bug, so the slower, safe mode is used; SQLite 3.51.3 or newer is free of it",
    )


def connections(settings: Settings, app: Any) -> list[Finding]:
    """The database, the broker and Redis, as far as they are set: do they answer, and what are they?"""
    found = _database(settings)
    if app is not None:
        found.append(_over_kombu("broker", app.connection_for_write()))
    elif settings.broker_url.startswith(("redis://", "rediss://")):
        found += _redis("broker", settings.broker_url, keeps_messages=True)
    elif settings.broker_url:
        from kombu.connection import Connection

        found.append(_over_kombu("broker", Connection(settings.broker_url)))  # type: ignore[no-untyped-call]
    else:
        found.append(Finding("broker", "info", "none set: steps run in threads of this process"))
    if settings.redis_url:
        found += _redis("redis", settings.redis_url, keeps_messages=False)
    return found


def guard(settings: Settings) -> list[Finding]:
    """The keys and the guard's rules: can they be used, and what do they do?"""
    from ..orchestration.guard.doors import open_for

    try:
        ring, policy = open_for(settings)
        shown = f"{', '.join(ring.ids)}; {ring.active} ({ring.fingerprint(ring.active)}) is active" if ring else "none"
    except CeleriacError as fault:
        return [Finding("guard", "broken", "the keys or the rules cannot be used", str(fault))]
    rules = "rules for values" if policy.active else "errors and logs are cleaned, values are not"
    advice = "" if ring else "sensitive state needs some: celeriac keys generate"
    return [Finding("keys", "ok" if ring else "info", shown, advice), Finding("guard", "info", rules)]


# -- the database ------------------------------------------------------------------------------------------------------


def _database(settings: Settings) -> list[Finding]:
    if settings.database.startswith("sqlite") and not Path(_sqlite_file(settings.database)).exists():
        return [_not_there_yet(Path(_sqlite_file(settings.database)))]
    from ..storage.database import Database

    database = None
    try:
        database = Database(settings.database)
        return [_schema(database), *_server(database), *_workers(database), *_maintenance(database, settings)]
    except Exception as fault:
        shown = settings.shown()["database_url"] or settings.database
        return [Finding("database", "broken", shown, explained(fault) or first_line(fault))]
    finally:
        if database is not None:
            database.dispose()


def _sqlite_file(url: str) -> str:
    return url.removeprefix("sqlite:///").partition("?")[0]


def _not_there_yet(file: Path) -> Finding:
    folder = _existing(file)
    if os.access(folder, os.W_OK):
        return Finding("database", "ok", f"{file} is made at the first use")
    return Finding("database", "broken", f"{file} is not there", f"{folder} may not be written to by this user")


def _schema(database: Database) -> Finding:
    from ..storage import schema
    from .db import state_of

    found = schema.revision(database)
    state = state_of(found, schema.HEAD)
    shown = f"{database.shown}, schema {found or 'not made yet'}"
    advice = {"older": "run `celeriac db upgrade`", "newer": f"this Celeriac knows only {schema.HEAD}: upgrade it"}.get(
        state, ""
    )
    return Finding("database", "broken" if advice else "ok", shown, advice)


def _server(database: Database) -> list[Finding]:
    if database.is_sqlite:
        return []
    with database.engine.connect() as connection:
        found = str(connection.exec_driver_sql("SHOW server_version").scalar())
    if known_faults.numbers(found)[0] >= POSTGRES_LEAST:
        return [Finding("postgresql", "ok", found)]
    return [Finding("postgresql", "warn", found, f"its makers no longer look after it; use {POSTGRES_LEAST} or newer")]


def _workers(database: Database) -> list[Finding]:
    from ..storage import schema, workers

    if schema.revision(database) != schema.HEAD:
        return []
    slots = database.read(workers.slots)
    return [Finding("workers", "info", f"room for {slots} steps at once" if slots else "none is running")]


def _maintenance(database: Database, settings: Settings) -> list[Finding]:
    """Whether jobs run when they are due, where there are workers, and how they last ended."""
    from ..orchestration.maintenance.keeper import planned
    from ..storage import maintenance, schema, workers

    if schema.revision(database) != schema.HEAD:
        return []
    (held, clock), slots = database.read(maintenance.held), database.read(workers.slots)
    found = []
    for name, schedule in planned(settings).items():
        last = schedule.last(clock)
        period = schedule.following(last) - last
        runs = database.read(lambda tx, name=name: maintenance.history(tx, name, 1))  # type: ignore[misc]
        if runs and runs[0]["outcome"] == "failed":
            said = f"{name} failed: {runs[0]['error']}"
            found.append(Finding("maintenance", "warn", said, f"see `celeriac maintenance history {name}`"))
        elif slots and name in held and held[name].scheduled_at < last - LATE_PERIODS * period:
            late = f"{name} was last begun for a time that is over {LATE_PERIODS} periods ago"
            found.append(Finding("maintenance", "warn", late, "workers are running, and none of them runs it"))
    return found or [Finding("maintenance", "ok", f"{len(planned(settings))} jobs by schedule")]


# -- brokers -----------------------------------------------------------------------------------------------------------


def _over_kombu(name: str, connection: Any) -> Finding:
    from ..config.urls import masked

    with connection:
        shown = masked(connection.as_uri())
        try:
            connection.connect_timeout = ANSWER_SECONDS
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=ANSWER_SECONDS)
            properties = getattr(connection.connection, "server_properties", None) or {}
        except Exception as fault:
            return Finding(name, "broken", shown, explained(fault) or first_line(fault))
    server = " ".join(str(properties[key]) for key in ("product", "version") if properties.get(key))
    return Finding(name, "ok", f"{shown} {server}".strip())


def _redis(name: str, url: str, keeps_messages: bool) -> list[Finding]:
    from ..config.urls import masked

    try:
        import redis

        with redis.Redis.from_url(url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS) as client:
            seen: dict[str, Any] = client.info()
    except Exception as fault:
        return [Finding(name, "broken", masked(url), explained(fault) or first_line(fault))]
    found = [Finding(name, "ok", masked(url)), _redis_version(name, seen)]
    policy = seen.get("maxmemory_policy", "noeviction")
    if keeps_messages and policy != "noeviction":
        advice = "the broker may throw messages away when memory is short; set maxmemory-policy noeviction"
        found.append(Finding(f"{name} memory", "warn" if not seen.get("maxmemory") else "broken", str(policy), advice))
    return found


def _redis_version(name: str, seen: dict[str, Any]) -> Finding:
    if seen.get("server_name", "redis") != "redis":
        return Finding(f"{name} server", "info", f"{seen['server_name']} {seen.get('valkey_version', '')}".strip())
    return Finding(f"{name} server", *known_faults.redis(str(seen.get("redis_version", "0"))))


# -- the disk ----------------------------------------------------------------------------------------------------------


def disk(settings: Settings) -> Finding:
    """How many small writes a second the disk under the data folder takes and keeps (fsync)."""
    folder = _existing(settings.data_dir / "x")
    if not os.access(folder, os.W_OK):
        return Finding("disk", "broken", str(folder), "may not be written to by this user")
    count, began = 0, time.monotonic()
    with tempfile.TemporaryFile(dir=folder) as stream:
        while time.monotonic() - began < DISK_SECONDS:
            stream.write(b"\0" * 4096)
            stream.flush()
            os.fsync(stream.fileno())
            count += 1
    rate = count / (time.monotonic() - began)
    advice = (
        "every finished step waits for the disk at least once: expect no more steps a second than this"
        if rate < 200
        else ""
    )
    return Finding("disk", "warn" if advice else "ok", f"{rate:,.0f} writes with fsync a second in {folder}", advice)


def _existing(path: Path) -> Path:
    """The nearest folder above a path that is there."""
    return next(folder for folder in path.absolute().parents if folder.is_dir())
