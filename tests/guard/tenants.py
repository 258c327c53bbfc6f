"""T28: tenants with the same prompts, random permissions and grants, and the cache on; nothing of one reaches another.

What an agent answers holds a canary of its tenant and its permissions, as from a source of data that shows each caller
its own. Whatever a caller can get hold of, through every door and with every id of the others, may hold canaries of its
own tenant only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from guard.doors import everything, handle, uses

from celeriac import Celeriac, Plan, step
from celeriac.errors import AccessDenied, SessionNotFound
from celeriac.orchestration.agents import Registry, agent
from celeriac.orchestration.guard.grants import bootstrap

#: Tenants are called so that a name cannot be taken apart wrongly; the last is the one without a name.
TENANTS = ("acme", "acme/x", "ac@me", "")
USERS = ("ana", "bob", "root")
PERMISSIONS = ("docs", "secrets", "mail")
PROMPTS = ("who", "what")


def canary(tenant: str, permissions: Any) -> str:
    """What the source shows to callers of a tenant with these permissions."""
    return f"canary<{TENANTS.index(tenant)}|{'+'.join(sorted(permissions))}>"


def agents() -> Registry:
    """Agents that answer from the source; `oracle` may be answered from the cache."""
    registry = Registry()

    @agent("oracle", registry=registry, optional_permissions=PERMISSIONS, cache_ttl=600, cache_tags=["told"])
    def oracle(request: Any, ctx: Any) -> Any:
        # The tenant is not asked for through `ctx.session`: that would keep the answer out of the cache.
        return {"told": canary(ctx._work.session[4], ctx.permissions), "prompt": request}

    @agent("keeper", registry=registry)
    def keeper(request: Any, ctx: Any) -> Any:
        mine = canary(ctx._work.session[4], ())
        seen = ctx.state.get("kept", mine)
        ctx.state.set("kept", mine)
        ctx.state.of(f"session:{ctx.session.id}").set("kept", mine)
        ctx.memory["kept"] = mine
        ctx.partial({"partial": mine})
        ctx.progress(0.5, mine)
        return {"seen": seen, "large": [mine] * request["lines"]}

    return registry


@dataclass
class Fuzz:
    """What was done and found."""

    make: Callable[..., Celeriac]
    dice: random.Random
    #: Before its idempotency keys, which are the same in all tenants.
    name: str = ""
    #: Canaries that reached whom they are not for: what, where, to whom.
    leaks: list[str] = field(default_factory=list)
    answers: int = 0
    cached: int = 0
    refused: int = 0
    looks: int = 0
    known: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def look(self, found: Any, tenant: str, where: str) -> None:
        """Note canaries of other tenants in what a caller of this one has been given."""
        self.looks += 1
        text = found if isinstance(found, str) else json.dumps(found, default=repr)
        others = [f"canary<{n}|" for n, one in enumerate(TENANTS) if one != tenant]
        self.leaks += [f"{one} by {where} to {tenant!r}" for one in others if one in text]

    def run(self, sessions: int) -> None:
        """Start sessions of random callers, run them, and look at what each was told."""
        c = self.make()
        for tenant in TENANTS:
            bootstrap(c.engine.database, tenant, "root")
            c.acting_as("root", tenant).grants.add("*", "write", "sessions")
        with c.embedded(2):
            for n in range(sessions):
                self._session(c, n)

    def _session(self, c: Celeriac, n: int) -> None:
        dice, tenant = self.dice, self.dice.choice(TENANTS)
        user = dice.choice(USERS)
        held = [one for one in PERMISSIONS if dice.random() < 0.5]
        prompt = dice.choice(PROMPTS)
        plan = Plan("ask", [step("ask", "oracle", prompt), step("keep", "keeper", {"lines": dice.choice((1, 4000))})])
        acting = c.acting_as(user, tenant)
        query, key = f"q {canary(tenant, ())}", f"{self.name}{n}"
        session = acting.sessions.start(plan, query, key=key, permissions=held, tags=["told"])
        assert session.wait(30) == "completed", session.error
        told = session.output("ask")["told"]
        self.answers += 1
        self.cached += bool(session.steps()[0]["cached"])
        if told != canary(tenant, held):
            self.leaks.append(f"{told} was served for {canary(tenant, held)}")
        self.look(session.output("keep"), tenant, "ctx.state")
        self._grant(acting, session.id)
        cached = acting._cache.key("oracle", prompt, permissions=held, tenant=tenant)
        ids = {"session": session.id, "Sessions": session.id, "Archives": session.id, "CallersCache": cached}
        root = c.acting_as("root", tenant)
        root.state.set("custom:x", "k", {"n": 1, "told": canary(tenant, ())})
        self.known.append((tenant, user, {**ids, "Migrations": "0190a000"}))

    def _grant(self, acting: Any, session_id: str) -> None:
        """Random grants of one's own session, and take some back."""
        who, right = self.dice.choice((*USERS, "*")), self.dice.choice(("read", "write", "admin"))
        acting.grants.add(who, right, f"session:{session_id}")
        if self.dice.random() < 0.5:
            acting.grants.remove(who, right, f"session:{session_id}")

    def try_every_door(self, tries: int) -> None:
        """Callers use every door with the ids of sessions of other tenants; admins of theirs, and others."""
        c = self.make()
        for _ in range(tries):
            owner, _, known = self.dice.choice(self.known)
            tenant = self.dice.choice([one for one in TENANTS if one != owner])
            acting = c.acting_as(self.dice.choice(USERS), tenant)
            for kind, name, use in uses():
                try:
                    found = use(handle(kind, acting, known))
                    found = found.to_dict() if hasattr(found, "to_dict") else found
                    listed = isinstance(found, list)
                    self.look([_shown(one) for one in found] if listed else _shown(found), tenant, name)
                except (AccessDenied, SessionNotFound) as fault:
                    self.refused += 1
                    self.look(str(fault), tenant, name)
                except Exception as fault:
                    self.look(str(fault), tenant, name)

    def check_all_that_is_left(self) -> None:
        """Every session is as its tenant had it, whatever the others tried."""
        c = self.make()
        for tenant, user, known in self.known:
            session = c.acting_as(user, tenant).sessions.get(known["session"])
            view = session.to_dict()
            assert view["status"] == "completed" and view["user"] == user, view
            self.look(view, tenant, "to_dict")
            self.look([str(event) for event in session.stream(follow=False)], tenant, "stream")
            self.look([session.output("ask"), session.output("keep"), session.partials()], tenant, "outputs")
        rows = everything(c.engine.database)
        assert len(rows["sessions"]) >= len(self.known)
        assert self.looks > len(self.known) and not self.leaks, self.leaks[:10]


def _shown(found: Any) -> Any:
    """All that can be read of what a door gave."""
    if hasattr(found, "stream") and hasattr(found, "to_dict"):
        return [found.to_dict(), [str(event) for event in found.stream(follow=False)]]
    return [str(one) for one in found] if hasattr(found, "__next__") else found
