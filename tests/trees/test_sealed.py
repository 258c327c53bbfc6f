"""What forks, branches, merges and templates write is sealed like all else, opens where it lies, and takes new keys."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import inspect, text

from celeriac import AgentOutput, step
from celeriac.errors import SealBroken
from celeriac.orchestration import rotating
from celeriac.orchestration.guard.access import Caller
from celeriac.orchestration.templates import Templates
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key
from celeriac.storage.keys.sealing import KeyRing
from trees.ledger import Ledger

OLD = Keys("old", {}).with_key("old", new_key())
BOTH = OLD.with_key("new", new_key())
NEW = Keys("new", {"new": BOTH.secrets["new"]}, OLD.hash)
RULES = {"fields": [{"path": "pin", "action": "encrypt"}]}
SECRET = "Zxsecretword"


def all_rows(ledger: Ledger) -> str:
    """All rows of all tables, as text."""
    with ledger.engine.database.engine.connect() as connection:
        names = inspect(ledger.engine.database.engine).get_table_names()
        return repr([tuple(row) for name in names for row in connection.execute(text(f'SELECT * FROM "{name}"'))])


@pytest.fixture
def make(make_driver: Callable[..., Any], tmp_path: Path) -> Callable[..., Ledger]:
    """Makes ledgers under keys."""

    def new(keys: Keys, **settings: Any) -> Ledger:
        file = tmp_path / f"keys-{keys.active}-{len(keys.secrets)}.toml"
        keyfile.write(file, keys)
        made = make_driver(Ledger, keys_file=str(file), inline_result_bytes=1000, **settings)
        assert isinstance(made, Ledger)
        return made

    return new


def add_tell(ledger: Ledger) -> None:
    """An agent that leaves a secret wherever it can."""

    @ledger.agent("tell")
    def tell(request: Any, ctx: Any) -> Any:
        ctx.memory["word"] = SECRET
        ctx.state.of(f"session:{ctx.session.id}").set("word", {"pin": SECRET})
        added = [step("more", "work", {"pin": SECRET})] if request.get("grow") else []
        return AgentOutput({"word": SECRET, "pin": 7, "long": SECRET * 200}, add_steps=added)


def fill(ledger: Ledger) -> tuple[Any, Any, Any]:
    """A session, a fork and a branch of it, full of secrets; and a conflict that merging the branch has left."""
    add_tell(ledger)
    session = ledger.ended(step("a", "tell", {"pin": SECRET}), step("b", "tell", {"grow": 1, "of": "${a.word}"}))
    session.history.add("user", {"pin": SECRET})
    branch = session.branch(SECRET, SECRET, SECRET)
    branch.history.add("user", {"pin": SECRET, "new": 1})
    state = ledger.engine.state
    state.set(f"session:{branch.id}", "word", SECRET)
    state.set(f"session:{session.id}", "word", "ours")
    session.merge(branch)
    fork = session.fork()
    assert fork.status == "completed" and ledger.ran() == []
    templates = Templates(ledger.engine, Caller())
    templates.save("weekly", preferences={"pin": SECRET}, tags=["x"], state={"pin": SECRET}, description=SECRET)
    return session, fork, branch


def test_where_all_is_sealed_nothing_of_them_lies_plain_and_all_of_it_opens(make: Callable[..., Ledger]) -> None:
    ledger = make(OLD, encrypt="all")
    session, fork, branch = fill(ledger)
    assert SECRET not in all_rows(ledger)
    assert fork.output("a")["word"] == SECRET and branch.history.count() == 2
    assert ledger.sessions.tree(session.id)["children"][0]["name"] == SECRET
    assert session.merge_conflicts()[0]["theirs"] == SECRET
    session.resolve(1, "theirs", by=SECRET)
    assert ledger.engine.state.get(f"session:{session.id}", "word") == SECRET and SECRET not in all_rows(ledger)
    assert rotating.rotate(make(BOTH, encrypt="all").engine, KeyRing(BOTH)).refused == []
    later = make(NEW, encrypt="all")
    add_tell(later)
    there = later.sessions.get(session.id)
    assert there.merge_conflicts(unresolved=False)[0]["resolution"] == {"choice": "theirs", "by": SECRET}
    assert there.children()[0].history(last=1)[0]["content"] == {"pin": SECRET, "new": 1}
    assert there.fork().output("b")["word"] == SECRET
    assert Templates(later.engine, Caller()).get("weekly").description == SECRET


def test_fields_that_a_rule_seals_open_in_the_session_that_has_them(make: Callable[..., Ledger]) -> None:
    ledger = make(OLD, guard_rules=RULES)
    session, fork, branch = fill(ledger)
    assert ledger.sessions.get(fork.id).reveal(fork.output("a"))["pin"] == 7
    with pytest.raises(SealBroken):
        fork.reveal(session.output("a"))
    shared, own = (entry["content"] for entry in branch.history())
    assert branch.reveal(shared) == {"pin": SECRET} and branch.reveal(own) == {"pin": SECRET, "new": 1}
    assert branch.reveal([shared, own]) == [{"pin": SECRET}, {"pin": SECRET, "new": 1}]
    merged = session.history(last=1)[0]["content"]
    assert session.reveal(merged) == {"pin": SECRET, "new": 1} and SECRET not in repr(merged)
    assert ledger.engine.state.get(f"session:{fork.id}", "word") == "ours"
    started = ledger.sessions.create(template="weekly")
    assert started.reveal(started.to_dict()["preferences"]) == {"pin": SECRET}
    changed = session.fork(inputs={"a": {"other": 1}})
    assert ledger.run_to_end(changed) == "completed" and len(changed.steps()) == 3
