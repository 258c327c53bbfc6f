"""What docs/schemas.md shows works as it stands there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from driver import Driver

import celeriac
from celeriac import step
from celeriac.errors import SchemaError
from celeriac.orchestration.schemas import Schema, Schemas, schemas
from celeriac.storage.states.protocol import StateError

from .killed import TWO_VERSIONS, state_of

PAGE = (Path(celeriac.__file__).parent / "docs" / "schemas.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Schemas:
    """The registry that modules register with, empty."""
    for name, value in vars(Schemas()).items():
        monkeypatch.setattr(schemas, name, value)
    return schemas


def test_the_file_of_schemas_on_the_page_can_be_loaded(fresh: Schemas, tmp_path: Path) -> None:
    (tmp_path / "schemas.yaml").write_text(blocks("yaml")[0])
    fresh.load([str(tmp_path / "schemas.yaml")])
    found = fresh.current("agent:analyzer", "profile/ana", {"name": "Ada King", "age": "36"}, "profile@1.0.0")
    assert found == ({"first": "Ada", "last": "King", "age": 36, "tags": []}, "profile@2.0.0", True)


def test_the_module_on_the_page_can_be_run(fresh: Schemas) -> None:
    exec(blocks("python")[0], {})
    assert fresh.current("workflow:w", "order/1", {"sum": "2.5"}, "order@1.0.0")[0] == {"total": 2.5}


def test_the_agent_on_the_page_can_be_run(make_driver: Any) -> None:
    driver: Driver = make_driver()
    (code,) = [block for block in blocks("python") if "memory.used" in block]
    exec(code, {"agent": driver.agent})
    session = driver.start(step("a", "researcher", {"question": "why"}))
    driver.run(session)
    assert session.status == "completed", session.error
    assert session.agent_states()["researcher"]["memory"]["tools"] == {"search": {"calls": 1, "seconds": 0.4}}


def test_state_checks_what_is_written_and_migrates_what_is_read(make_driver: Any) -> None:
    first, second = TWO_VERSIONS
    made = Schemas()
    made.add(first)
    made.bind("agent:*", "profile*", "profile")
    state = state_of(make_driver(), schemas=made)
    with pytest.raises(SchemaError, match="'profile/1' does not fit schema profile@1.0.0: age must be a string"):
        state.set("agent:a", "profile/1", {"nom": "Ana", "age": 3})
    state.set("agent:a", "profile/1", {"nom": "Ana", "age": "3", "more": 1})
    with pytest.raises(SchemaError, match="more is not known"):
        state.set("agent:a", "profile/2", {"nom": "Ana", "age": "3", "more": 1}, state_class="external")
    with pytest.raises((SchemaError, StateError), match="schema"):
        state.set("agent:a", "free", 1, state_class="external")
    state.set("agent:a", "profile/3", {"nom": 5}, state_class="trusted")
    made.add(second)
    assert state.get("agent:a", "profile/1", consistent=True) == {"name": "Ana", "age": 3, "more": 1}
    state.update("agent:a", "profile/1", lambda value: {**value, "age": value["age"] + 1})
    assert state.get("agent:a", "profile/1", consistent=True)["age"] == 4


def test_the_names_that_users_import_are_there() -> None:
    assert celeriac.Schema is Schema and celeriac.schemas is schemas
