"""`Celeriac`: durable sessions for a Celery app, ours or the user's."""

from __future__ import annotations

import atexit
import contextlib
import functools
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import Celery

from ..config import Settings
from ..orchestration import sweeping
from ..orchestration.agents import Registry, registry
from ..orchestration.cache import ResultCache
from ..orchestration.cache.door import CallersCache
from ..orchestration.cache.sharing import StepCache
from ..orchestration.engine import Engine
from ..orchestration.guard import logs
from ..orchestration.guard.access import Caller, Right
from ..orchestration.guard.grants import Grants
from ..orchestration.heartbeat import Heartbeat
from ..orchestration.history.histories import Histories
from ..orchestration.maintenance.keeper import Keeper
from ..orchestration.schemas import Schemas, schemas
from ..orchestration.sessions import Session, Sessions
from ..orchestration.state.state import State
from ..orchestration.sweeping import Swept
from ..orchestration.templates import Templates
from ..storage import schema
from ..storage.events import Hint
from ..storage.keys import keymarks
from ..storage.keys.sealing import KeyRing
from . import conf, own, signals
from .acting import Acting
from .embedded import EmbeddedWorker
from .flower import StepEvents
from .life import WorkerLife
from .loading import load_agents
from .relay import PUBLISH_SECONDS, Publisher, Relay
from .serving import Serving
from .timeline import Timeline
from .upkeep import Upkeep

if TYPE_CHECKING:  # a worker does without them, and starts the sooner
    from ..orchestration.archives.archives import Archives
    from ..orchestration.erasing.receipts import Receipt
    from ..orchestration.maintenance.maintenance import Maintenance
    from ..orchestration.schemas.runs import Migrations

logger = logging.getLogger("celeriac")


class Celeriac(Upkeep):
    """Durable sessions for a Celery app.

    `Celeriac()` makes an app of its own from the settings; `Celeriac(app)` joins a user's app: its workers then run
    steps beside its tasks. Without a broker, steps run in threads of this process, from the first session that is
    started or waited for (`embed=False`: they are left to another process). Making one connects to nothing.
    """

    def __init__(
        self,
        app: Celery | None = None,
        settings: Settings | None = None,
        *,
        registry: Registry = registry,
        embed: bool = True,
        **overrides: Any,
    ) -> None:
        self.settings = settings or Settings.load(overrides)
        self._attached = app is not None
        self.app = app if app is not None else conf.own_app(self.settings)
        #: Whether workers get hints from a broker; else they are threads of a process that shares the database.
        self.broker = self._attached or bool(self.settings.broker_url)
        self._engine = Engine(self.settings, registry)
        self._ready = False
        self._starting = threading.RLock()
        self._events = StepEvents(self.app)
        self._heartbeat = Heartbeat(self._engine)
        self._cache = ResultCache(self.settings, self._engine.database, self._engine.blobs)
        self._keeper = Keeper(self._engine, self._cache)
        cached = StepCache(self._engine, self._cache)
        self._serving = Serving(self.app, self._engine, self._heartbeat, self._events, cached)
        self.timeline = Timeline(self._engine)
        self._embed = embed and not self.broker
        self._worker: EmbeddedWorker | None = None
        self._ending = False
        self._embedded_queue = f"celeriac-{secrets.token_hex(4)}"
        self._step = own.add(self)
        self._publisher = Publisher(self.app)
        self._relay = Relay(self._engine, self._send)
        self._engine.hints.publisher = self._relay.publish if self.broker else self._publish_here
        if self.broker:
            self._serving.pass_on = self._pass_on
        self._waker = self._join_hot_layer()
        self.life = WorkerLife(
            app=self.app,
            attached=self._attached,
            broker=self.broker,
            prepare=self.prepare,
            engine=self._engine,
            cache=self._cache,
            keeper=self._keeper,
            serving=self._serving,
            relay=self._relay,
            heartbeat=self._heartbeat,
            events=self._events,
            timeline=self.timeline,
        )
        self._disconnect: Callable[[], None] | None = signals.connect(self)

    # -- what users use ----------------------------------------------------------------------------------------------

    @property
    def engine(self) -> Engine:
        """The engine. The first use prepares it."""
        self.prepare()
        return self._engine

    @property
    def keyring(self) -> KeyRing | None:
        """The keys of `keys_file` or CELERIAC_KEYS; None where neither is set."""
        return self._engine.keyring

    def prepare(self) -> None:
        """Bring an empty database to the current schema and import the agents. Only the first call does anything."""
        if self._ready:
            return
        with self._starting:
            if not self._ready:
                if self._attached:
                    conf.check(self.app)
                own.sign(self.app)
                schema.ensure(self._engine.database)
                keymarks.confirm(self._engine.database, self._engine.keyring, self.settings.encrypt == "all")
                load_agents(self.settings.agents)
                logs.install(self._engine.guard)
                schemas.load(self.settings.schemas)
                self._ready = True

    @property
    def sessions(self) -> Sessions:
        """Starting and finding sessions."""
        return self._acting(self._engine.caller).sessions

    @property
    def state(self) -> State:
        """Keyed state in scopes; agents have it as `ctx.state`."""
        return self.engine.state if self._is_plain else self._own_state

    @functools.cached_property
    def _own_state(self) -> State:
        return self.engine.state_for(self._engine.caller)

    @property
    def schemas(self) -> Schemas:
        """Schemas of keyed state, as the setting `schemas` names them."""
        self.prepare()
        return schemas

    @property
    def migrations(self) -> Migrations:
        """Bringing values of keyed state to other versions of their schemas."""
        return self._acting(self._engine.caller).migrations

    @property
    def histories(self) -> Histories:
        """What is said in all sessions: listing it, and moving it to another place."""
        return self._acting(self._engine.caller).histories

    @property
    def templates(self) -> Templates:
        """Templates that sessions can be started from."""
        return self._acting(self._engine.caller).templates

    @property
    def cache(self) -> ResultCache | CallersCache:
        """The cache of agents' results, shared by all processes of this database."""
        self.prepare()
        return self._cache if self._is_plain else self._acting(self._engine.caller).cache

    @property
    def archives(self) -> Archives:
        """Sessions that are put away into files."""
        return self._acting(self._engine.caller).archives

    def erase(self, **what: Any) -> Receipt:
        """Remove all that there is of a `user` or a `session`; as `Acting.erase`."""
        return self._acting(self._engine.caller).erase(**what)

    def receipts(self) -> list[Receipt]:
        """Receipts of what was erased; as `Acting.receipts`."""
        return self._acting(self._engine.caller).receipts()

    @property
    def maintenance(self) -> Maintenance:
        """The jobs that run by schedule. Raises AccessDenied without admin on everything."""
        from ..orchestration.maintenance.maintenance import Maintenance

        return Maintenance(self.engine, self._keeper, self._engine.caller)

    def maintain(self, job: str) -> str | None:
        """Run a job of maintenance if it is due and nobody is at it; gives how that ended, None if it was not run."""
        self.prepare()
        ended = self._keeper.run_if_due(job, "beat")
        return ended.outcome if ended is not None else None

    def research(self, question: str, folders: Sequence[str | Path], *, out: str | Path, **more: Any) -> Session:
        """Start the built-in research job, and do not wait for it; as `Acting.research`."""
        return self._acting(self._engine.caller).research(question, folders, out=out, **more)

    @property
    def grants(self) -> Grants:
        """Giving grants and taking them back."""
        return self._acting(self._engine.caller).grants

    def acting_as(self, principal: str, tenant: str | None = None) -> Acting:
        """Sessions, state, cache, migrations and grants as a principal of a tenant has them (None: of the settings').

        Nothing of another tenant can be had from it. Who is who is for the program to know: nobody is asked for a
        password here. Raises SettingsError for a name that is none.
        """
        return self._acting(Caller(principal, self.settings.tenant if tenant is None else tenant))

    def _acting(self, caller: Caller) -> Acting:
        engine = self.engine
        self._serving.count_slots()
        return Acting(engine, self._cache, caller, self._waker, self._attend)

    def require(self, right: Right, resource: str) -> None:
        """Raise AccessDenied unless the principal of the settings holds that right; nothing while access is off."""
        self.engine.access.require(self._engine.caller, right, resource)

    @property
    def _is_plain(self) -> bool:
        """Whether nobody is named and nothing checked: then state and cache are those of whoever holds the database."""
        return not self._engine.access.on and not self.settings.tenant

    def sweep(self) -> Swept:
        """Return steps of dead workers and publish hints that were lost, once."""
        return sweeping.sweep(self.engine)

    @contextlib.contextmanager
    def embedded(self, concurrency: int | None = None) -> Iterator[EmbeddedWorker]:
        """Run steps in threads of this process for the length of the `with` block."""
        worker = self._start_embedded(concurrency)
        try:
            yield worker
        finally:
            self._stop_embedded()

    def serve(self) -> None:
        """Run workers of this configuration until SIGINT or SIGTERM: Celery's with a broker, else threads here."""
        if self.broker:
            self.app.worker_main(["worker", "--loglevel", self.settings.log_level, *self._concurrency()])
            return
        stop = threading.Event()
        former: dict[int, Any] = {}

        def ask_to_stop(*_: Any) -> None:
            stop.set()
            for number, handler in former.items():  # the second signal ends the process as it would any other
                signal.signal(number, handler)

        for number in (signal.SIGINT, signal.SIGTERM):
            former[number] = signal.signal(number, ask_to_stop)
        with self.embedded():
            stop.wait()

    def _concurrency(self) -> list[str]:
        return ["--concurrency", str(self.settings.concurrency)] if self.settings.concurrency else []

    def close(self) -> None:
        """Stop what runs in this process and close the connections. A use after that opens them again."""
        self._stop_embedded()
        self._engine.hints.close()
        with contextlib.suppress(Exception):
            self._relay.strike_off()
        with contextlib.suppress(Exception):
            self._publisher.close()
        if self._disconnect is not None:
            self._disconnect()
            self._disconnect = None
        with contextlib.suppress(Exception):
            self._cache.close()
        if "state" in vars(self._engine):
            with contextlib.suppress(Exception):
                self._engine.state.close()
        self._engine.presence.leave()
        self._engine.database.dispose()

    # -- hints in and out -----------------------------------------------------------------------------------------

    def take_hint(self, session_id: str, queue: str | None) -> int:
        """Run what a hint tells of; gives how many steps that were."""
        self.prepare()
        return self._serving.serve(session_id, queue)

    def _send(self, hint: Hint) -> None:
        """Publish one hint: ids only, to the default exchange, without a retry (the outbox is the retry)."""
        if not self.broker:
            self._step.apply_async((hint.session_id, None), queue=self._embedded_queue, retry=False)
            return
        queue = self.app.conf.task_default_queue if hint.queue == self.settings.queue else hint.queue
        with self._publisher.producer() as producer:
            self._step.apply_async(
                (hint.session_id, hint.queue),
                queue=queue,
                retry=False,
                producer=producer,
                timeout=PUBLISH_SECONDS,
                confirm_timeout=PUBLISH_SECONDS,
            )

    def _pass_on(self, session_id: str, queue: str | None) -> None:
        """A hint reached a worker that is stopping: let another one have it."""
        try:
            self._send(Hint(None, session_id, queue or self.settings.queue, 0, 1))
        except Exception as fault:  # the sweeper finds the step
            logger.warning("a hint could not be passed on: %s", fault)

    def _publish_here(self, hints: list[Hint]) -> None:
        """Without a broker: run the steps in this process, or leave the hints to one that looks at the database."""
        if self._embed and self._worker is None and not self._ending:
            self._start_embedded(None)
        if self._worker is not None:
            self._relay.publish(hints)

    def _join_hot_layer(self) -> Any:
        settings = self.settings
        if not settings.redis_url:
            return None
        from ..storage import events
        from ..storage.hot import HotStreams, RedisWaker

        database = self._engine.database
        streams = HotStreams(
            settings.redis_url,
            settings.redis_timeout,
            settings.stream_events_kept,
            lambda session_id, beyond, most: database.read(lambda tx: events.since(tx, session_id, beyond, most)),
            database.codec,
        )
        self._engine.listeners.append(streams.note)
        return RedisWaker(settings.redis_url, settings.redis_timeout)

    # -- the worker in this process ----------------------------------------------------------------------------------

    def _attend(self) -> None:
        """Somebody waits for a session: without a broker, see to it that somebody runs it."""
        if self._embed:
            self._start_embedded(None)

    def _start_embedded(self, concurrency: int | None) -> EmbeddedWorker:
        with self._starting:
            if self._worker is None:
                self.prepare()
                self._disconnect = self._disconnect or signals.connect(self)
                slots = concurrency or self.settings.concurrency or min(os.cpu_count() or 1, 8)
                self._worker = EmbeddedWorker(self.app, self._embedded_queue, slots)
                self._worker.start()
                atexit.register(self._stop_embedded)
            return self._worker

    def _stop_embedded(self) -> None:
        with self._starting:
            worker, self._worker = self._worker, None
            if worker is None:
                return
            self._ending = True  # what is swept or given back from here on is for others to run
        try:
            self._serving.stopping.set()
            if not worker.stop():
                self._serving.give_all_back()
            with contextlib.suppress(Exception):
                self._relay.strike_off()
        finally:
            self._ending = False
            atexit.unregister(self._stop_embedded)


@functools.cache
def default() -> Celeriac:
    """The Celeriac of the settings in force, made once for each process."""
    return Celeriac()
