"""Stores as those of the backups' tests, with archives."""

from __future__ import annotations

from typing import Any

from backup.conftest import INLINE, Store, keys_file, new_store

from celeriac.orchestration.agents import AgentOutput, Finding
from celeriac.orchestration.archives.archives import Archives
from celeriac.orchestration.plans import Step

__all__ = ["INLINE", "Store", "archives_of", "keys_file", "new_store", "rich_session"]


def archives_of(store: Store) -> Archives:
    """The archives of a store."""
    engine = store.driver.engine
    return Archives(engine, engine.caller, store.driver.sessions)


def rich_session(store: Store, query: str = "who", user: str = "ana") -> str:
    """A completed session with something of everything; gives its id."""
    driver = store.driver
    if "tell" not in driver.registry.names():

        @driver.agent("tell")
        def tell(request: dict[str, Any], ctx: Any) -> AgentOutput:
            ctx.partial({"so far": request["said"]})
            ctx.memory["kept"] = [request["said"]] * 3
            ctx.state.set("seen", request["said"])
            findings = [Finding("it", "colour", request["said"]), Finding("it", "colour", "red")]
            return AgentOutput({"said": request["said"]}, findings)

    steps = [
        Step("small", "tell", request={"said": f"{query} said"}),
        Step("large", "make", request={"size": 3 * INLINE, "text": f"{query} large "}, after=["small"]),
    ]
    session = driver.start(*steps, query=query, user=user, tags=["x", "y"], title=f"about {query}", notes="noted")
    assert driver.run_to_end(session) == "completed"
    state = driver.engine.state
    state.set(f"session:{session.id}", "key", {"own": query})
    state.set(f"session:{session.id}", "big", [f"{query} big "] * INLINE)
    for number in range(30):
        session.add(user_request=f"{query} {number}", agent="tell", response={"n": number})
    session.history.add("user", f"{query} long " * INLINE)
    session.checkpoint("at the end")
    return str(session.id)
