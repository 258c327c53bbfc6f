"""One invocation of the command line: its settings, and the Celeriac that its command works with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .faults import Unreachable, explained, first_line

if TYPE_CHECKING:
    from ..config import Settings
    from ..orchestration.session import Session
    from ..tasks.app import Celeriac

#: A broker that has not answered within so many seconds is taken for unreachable.
BROKER_SECONDS = 4.0


@dataclass
class Invocation:
    """What the group hands to its commands. `app` is the user's app under `celery -A app celeriac`; `principal` and
    `tenant` are whom it acts as, if not as the settings say.
    """

    config: Path | None = None
    app: Any = None
    principal: str | None = None
    tenant: str | None = None

    def settings(self, **overrides: Any) -> Settings:
        """The settings in force. Raises SettingsError."""
        from ..config import Settings

        named = {"principal": self.principal, "tenant": self.tenant}
        overrides |= {name: value for name, value in named.items() if value is not None}
        return Settings.load(overrides=overrides, file=self.config)

    @contextlib.contextmanager
    def celeriac(self, **overrides: Any) -> Iterator[Celeriac]:
        """A Celeriac whose database answers. It runs no steps by itself. Raises CeleriacError."""
        from ..tasks.app import Celeriac

        settings = self.settings(**overrides)
        c = Celeriac(self.app, settings=settings, embed=False)
        try:
            reach_database(c)
            yield c
        finally:
            c.close()

    @contextlib.contextmanager
    def session(self, session_id: str) -> Iterator[tuple[Celeriac, Session]]:
        """A Celeriac and its session of that id (or start of an id). Raises SessionNotFound."""
        with self.celeriac() as c:
            yield c, c.sessions.get(session_id)


pass_invocation = click.make_pass_decorator(Invocation)


def reach_database(c: Celeriac) -> None:
    """Open the database and bring an empty one to the current schema. Raises Unreachable naming its URL."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        c.prepare()
    except (SQLAlchemyError, OSError) as fault:
        raise Unreachable(
            f"the database {c.settings.shown()['database_url'] or c.settings.database} cannot be used: "
            f"{first_line(getattr(fault, 'orig', None) or fault)}"
        ) from fault


def broker_fault(c: Celeriac) -> str | None:
    """Why the broker cannot be reached, or None if it can (or none is needed)."""
    if not c.broker:
        return None
    from ..config.urls import masked

    with c.app.connection_for_write() as connection:
        where = masked(connection.as_uri())
        try:
            connection.connect_timeout = BROKER_SECONDS
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=BROKER_SECONDS)
        except Exception as fault:
            return f"the broker {where} cannot be reached: {explained(fault) or first_line(fault)}"
    return None


def reach_broker(c: Celeriac) -> None:
    """Raises Unreachable where a broker is needed and does not answer."""
    fault = broker_fault(c)
    if fault:
        raise Unreachable(fault)
