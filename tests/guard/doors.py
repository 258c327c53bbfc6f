"""Every door of every handle: how each public method and property is used, so that none can be without a check."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import inspect, text

from celeriac import Plan, State, step
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.cache.door import CallersCache
from celeriac.orchestration.control import Order
from celeriac.orchestration.guard.grants import Grants
from celeriac.orchestration.history.histories import Histories
from celeriac.orchestration.history.history import History
from celeriac.orchestration.keeping.pruning import Pruning
from celeriac.orchestration.schemas.runs import Migrations
from celeriac.orchestration.session import Session
from celeriac.orchestration.sessions import Sessions
from celeriac.orchestration.state.stepstate import Held, StepState
from celeriac.orchestration.templates import Templates
from celeriac.storage.database import Database
from celeriac.storage.states.protocol import Origin
from celeriac.tasks.acting import Acting

PLAN = Plan("p", [step("a", "echo", {"x": 1})])

#: How each public method and property of a handle is used. What is not here and not in FREE fails the test below.
DOORS: dict[type, dict[str, Callable[[Any], Any]]] = {
    Session: {
        **{name: (lambda s, name=name: getattr(s, name)) for name in (
            "status", "query", "user", "error", "progress", "result", "saved", "report", "plan",
        )},
        **{name: (lambda s, name=name: getattr(s, name)()) for name in (
            "steps", "partials", "agent_states", "findings", "conflicts", "to_dict", "last_event", "pause", "resume",
            "cancel", "retry", "complete", "archive", "checkpoint", "checkpoints",
        )},
        "output": lambda s: s.output("a"),
        "asked": lambda s: s.asked("a"),
        "resolve_conflict": lambda s: s.resolve_conflict(1, "x"),
        "reveal": lambda s: s.reveal({}),
        "wait": lambda s: s.wait(1),
        "stream": lambda s: s.stream(follow=False),
        "run": lambda s: s.run(PLAN),
        "checkpoint_state": lambda s: s.checkpoint_state(1),
        "diff": lambda s: s.diff(1, 1),
        "mark": lambda s: s.mark(1),
        "restore": lambda s: s.restore(1),
        "change": lambda s: s.change(title="x"),
        "add": lambda s: s.add(user_request="x"),
        "compact": lambda s: s.compact(),
        "uncompact": lambda s: s.uncompact(),
        "prune": lambda s: s.prune("lru", keep=0),
        "cold": lambda s: list(s.cold()),
        "send_message": lambda s: s.send_message("x", timeout=1),
        "fork": lambda s: s.fork(),
        "branch": lambda s: s.branch("try"),
        "parent": lambda s: s.parent,
        **{name: (lambda s, name=name: getattr(s, name)()) for name in ("children", "path", "merge_conflicts")},
        "merge": lambda s: s.merge(s.id),
        "resolve": lambda s: s.resolve(1, "ours"),
        "attach": lambda s: s.attach(s.id),
        "detach": lambda s: s.detach(s.id),
        "attached": lambda s: s.attached(),
    },
    Sessions: {
        "start": lambda s: s.start(PLAN),
        "create": lambda s: s.create("q"),
        "get": lambda s: s.get(s.known),
        "list": lambda s: s.list(),
        "search": lambda s: s.search("secret"),
        "delete": lambda s: s.delete(s.known),
        "tree": lambda s: s.tree(s.known),
        "current": lambda s: s.current(s.known),
        "switch": lambda s: s.switch(s.known, s.known),
        "compare": lambda s: s.compare(s.known, s.known),
        "cache_stats": lambda s: s.cache_stats(),
        "active_count": lambda s: s.active_count(),
        "cleanup_inactive": lambda s: s.cleanup_inactive(-1),
    },
    State: {
        "get": lambda s: s.get("custom:x", "k"),
        "get_versioned": lambda s: s.get_versioned("custom:x", "k"),
        "get_many": lambda s: s.get_many("custom:x", ["k"]),
        "exists": lambda s: s.exists("custom:x", "k"),
        "list_keys": lambda s: s.list_keys("custom:x"),
        "set": lambda s: s.set("custom:x", "k", 2),
        "set_many": lambda s: s.set_many("custom:x", {"k": 2}),
        "delete": lambda s: s.delete("custom:x", "k"),
        "clear_scope": lambda s: s.clear_scope("custom:x"),
        "update": lambda s: s.update("custom:x", "k", lambda v: v),
        "compare_and_set": lambda s: s.compare_and_set("custom:x", "k", 0, 1),
        "clear_with": lambda s: s.clear_with(None, "custom:x"),
        "put_back": lambda s: s.put_back(None, "custom:x", {}, Origin()),
        "named": lambda s: s.named("read", "custom:x", ()),
    },
    CallersCache: {
        "key": lambda s: s.key("echo", 1, permissions=[]),
        "get": lambda s: s.get(s.known),
        "generation": lambda s: s.generation(),
        "put": lambda s: s.put(s.known, 1),
        "invalidate": lambda s: s.invalidate(everything=True),
        "cleanup_expired": lambda s: s.cleanup_expired(),
        "prune": lambda s: s.prune(max_entries=0),
        "stats": lambda s: s.stats(),
    },
    Grants: {
        "add": lambda s: s.add("eve", "read", "custom:x"),
        "remove": lambda s: s.remove("ana", "write", "sessions"),
        "list": lambda s: s.list(),
        "refused": lambda s: s.refused(),
    },
    Migrations: {
        "dry_run": lambda s: s.dry_run("custom:x", schema="access-profile"),
        "run": lambda s: s.run("custom:x", schema="access-profile"),
        "resume": lambda s: s.resume(s.known),
        "undo": lambda s: s.undo(s.known),
        "accept": lambda s: s.accept(s.known),
        "get": lambda s: s.get(s.known),
        "list": lambda s: s.list(),
    },
    History: {
        "append": lambda h: h.append({"role": "user"}),
        "add": lambda h: h.add("user", "x"),
        "extend": lambda h: h.extend([{"role": "user"}]),
        "pour": lambda h: h.pour(lambda: iter([{"role": "user"}])),
        "import_lines": lambda h: h.import_lines(Path("/dev/null")),
        "export_lines": lambda h: h.export_lines(io.StringIO()),
        "last": lambda h: h.last(5),
        "range": lambda h: h.range(1, 5),
        "all": lambda h: list(h.all()),
        **{name: (lambda h, name=name: getattr(h, name)()) for name in (
            "count", "window", "summarize", "prune", "clear", "compact", "uncompact",
        )},
        "cold": lambda h: list(h.cold()),
        "whole": lambda h: list(h.whole()),
    },
    Histories: {
        "list": lambda h: list(h.list()),
        "move": lambda h: h.move(h.known, "file:///nowhere/that/is"),
    },
    Pruning: {
        "run": lambda p: p.run("lru", keep=10**9),
        "stats": lambda p: p.stats(),
    },
    Archives: {
        **{name: (lambda a, name=name: getattr(a, name)(a.known)) for name in (
            "create", "get", "show", "verify", "restore", "delete",
        )},
        "list": lambda a: a.list(),
        "search": lambda a: a.search("secret"),
        "open": lambda a: a.open(a.known).__enter__(),
        "tidy": lambda a: a.tidy(),
    },
    Acting: {
        "research": lambda s: s.research("q", ["/"], out="/tmp/nowhere"),
        "erase": lambda s: s.erase(user="somebody", dry_run=True),
        "receipts": lambda s: s.receipts(),
    },
    Templates: {
        "save": lambda t: t.save("mine", tags=["x"]),
        "get": lambda t: t.get("weekly"),
        "list": lambda t: t.list(),
        "delete": lambda t: t.delete("weekly"),
        "applied": lambda t: t.applied("weekly", None, Order()),
    },
    StepState: {
        "get": lambda s: s.get("k"),
        "get_versioned": lambda s: s.get_versioned("k"),
        "get_many": lambda s: s.get_many(["k"]),
        "exists": lambda s: s.exists("k"),
        "list_keys": lambda s: s.list_keys(),
        "set": lambda s: s.set("k", 2),
        "set_many": lambda s: s.set_many({"k": 2}),
        "delete": lambda s: s.delete("k"),
        "clear": lambda s: s.clear(),
        "update": lambda s: s.update("k", lambda v: v),
        "compare_and_set": lambda s: s.compare_and_set("k", 1, 2),
    },
}  # fmt: skip
#: What gives no data and changes none: parts of others, and what gives a handle that is checked itself.
FREE: dict[type, set[str]] = {
    State: {"capabilities", "of_tenant", "with_access", "bound", "close", "place_of", "class_for", "write", "updating"},
    Acting: {
        "sessions",
        "state",
        "cache",
        "grants",
        "migrations",
        "histories",
        "pruning",
        "archives",
        "templates",
    },
    StepState: {"of"},
    Session: {"history"},
}
#: Doors that show what the caller may see, and so nothing to who may see nothing.
NOTHING = {(Sessions, "list"), (Sessions, "search"), (Sessions, "active_count"), (Sessions, "cleanup_inactive"),
           (Grants, "list"), (Grants, "refused"), (Migrations, "list"), (Histories, "list"),
           (Archives, "list"), (Archives, "search")}  # fmt: skip


#: Doors that need more than read; and more than write.
WRITES: dict[type, set[str]] = {
    Session: {"resolve_conflict", "pause", "resume", "cancel", "retry", "complete", "archive", "checkpoint", "mark",
              "restore", "change", "add", "send_message", "fork", "branch", "merge", "resolve",
              "attach", "detach"},
    Sessions: {"start", "create", "switch"},
    State: {"set", "set_many", "delete", "clear_scope", "update", "compare_and_set", "clear_with", "put_back"},
    CallersCache: {"put", "invalidate", "cleanup_expired", "prune"},
    Migrations: {"run", "resume", "undo", "accept"},
    History: {"append", "add", "extend", "pour", "import_lines", "prune"},
    Acting: {"research"},
    Archives: {"create", "restore"},
    StepState: {"set", "set_many", "delete", "clear", "update", "compare_and_set"},
}  # fmt: skip
ADMINS: dict[type, set[str]] = {
    Session: {"run", "reveal", "compact", "uncompact", "prune"}, Templates: {"save", "delete"},
    Sessions: {"delete"}, Grants: {"add", "remove"},
    History: {"clear", "compact", "uncompact"}, Pruning: {"run", "stats"}, Histories: {"move"},
    Archives: {"delete", "tidy"}, Acting: {"erase", "receipts"},
}  # fmt: skip
#: What another tenant does for itself.
OWN: dict[type, set[str]] = {
    Sessions: {"start", "create", "cache_stats"},
    Acting: {"research"},
    Grants: {"add"},
    Pruning: {"run"},
    Migrations: {"run", "dry_run"},
    Templates: {"save"},
}


def public(kind: type) -> set[str]:
    """Names of methods and properties."""
    return {name for name in dir(kind) if not name.startswith("_") and name not in dir(object)}


def handle(kind: type, acting: Acting, known: dict[str, Any]) -> Any:
    """A handle of the caller's, which knows what others have."""
    if kind is Session:
        return Session(acting._engine, known["session"], caller=acting.caller)
    if kind is History:
        return handle(Session, acting, known).history
    if kind is StepState:
        return StepState(acting.state, "custom:x", Held(acting.state, Origin()), Origin())
    made = {Acting: acting}.get(kind) or getattr(acting, {CallersCache: "cache"}.get(kind, kind.__name__.lower()))
    with contextlib.suppress(AttributeError):
        made.known = known.get(kind.__name__)
    return made


def uses() -> Iterator[tuple[type, str, Callable[[Any], Any]]]:
    """Every use of every door."""
    for kind, doors in DOORS.items():
        for name, use in doors.items():
            yield kind, name, use


def everything(database: Database) -> dict[str, list[Any]]:
    """All rows of all tables but the one that refusals are noted in."""
    with database.engine.connect() as connection:
        names = sorted(set(inspect(database.engine).get_table_names()) - {"refusals", "alembic_version"})
        names = [name for name in names if not name.startswith("session_search_")]
        return {name: sorted(map(repr, connection.execute(text(f'SELECT * FROM "{name}"')))) for name in names}
