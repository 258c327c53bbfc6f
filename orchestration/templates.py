"""Templates: what sessions can be started from by name: a plan, preferences, tags, and what their state begins with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from ..errors import PlanError, SessionError, TemplateNotFound
from ..storage import events, serial
from ..storage import templates as rows
from ..storage.states.protocol import Origin
from . import control
from .engine import Engine
from .guard.access import SESSIONS, Caller, Right, needs
from .guard.doors import guarded_plan
from .plans import Plan, data_of
from .rows import check_agents
from .sizes import check_count, check_plan, check_requests, check_text, document_text, mapping, words
from .state import copying
from .state.scopes import Scope, check_key
from .turn import Turn
from .views import moment

_LONGEST_NAME: Final = 200
#: What a template's file may say.
_KEYS: Final = ("name", "description", "plan", "preferences", "tags", "state", "updated_at")


@dataclass(frozen=True, slots=True)
class Template:
    """What sessions are started from. `state` is what the scope of each begins with, by key."""

    name: str
    description: str = ""
    plan: Plan | None = None
    preferences: Mapping[str, Any] = field(default_factory=dict)
    tags: Sequence[str] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    updated_at: str | None = None

    @classmethod
    def from_file(cls, path: str | Path) -> Template:
        """A template from a .yaml, .yml or .json file: a mapping with what `to_dict` gives, all of it may be missing.

        The name is else the file's; `plan` may also be the path of a plan's file, from the folder of this one. Raises
        PlanError and SessionError naming the file.
        """
        path = Path(path)
        data = data_of(path, "template")
        if not isinstance(data, Mapping):
            raise SessionError(f"{path}: a template is a mapping with {', '.join(_KEYS)}; found {type(data).__name__}")
        for key in data:
            if key not in _KEYS:
                raise SessionError(f"{path}: unknown key {key!r:.100} of a template; allowed: {', '.join(_KEYS)}")
        given = {key: value for key, value in data.items() if value is not None and key != "updated_at"}
        plan = given.get("plan")
        if isinstance(plan, str):
            given["plan"] = Plan.from_file(path.parent / plan)
        elif plan is not None:
            try:
                given["plan"] = Plan.from_dict(plan)
            except PlanError as fault:
                raise PlanError(f"{path}: {fault}") from None
        return cls(**{"name": path.stem, **given})

    def to_yaml(self) -> str:
        """The template as the YAML text that `from_file` reads."""
        import yaml

        said = {key: value for key, value in self.to_dict().items() if value and key != "updated_at"}
        return str(yaml.safe_dump(said, sort_keys=False, allow_unicode=True))

    def to_dict(self) -> dict[str, Any]:
        """The template as JSON-able data."""
        plan = None if self.plan is None else self.plan.to_dict()
        return {
            "name": self.name,
            "description": self.description,
            "plan": plan,
            "preferences": dict(self.preferences),
            "tags": list(self.tags),
            "state": dict(self.state),
            "updated_at": self.updated_at,
        }


class Templates:
    """The templates of the caller's tenant. Where access is on, reading them takes `read` on `sessions`, and saving or
    deleting them `admin`: others run what they say.
    """

    def __init__(self, engine: Engine, caller: Caller) -> None:
        self._engine = engine
        self._caller = caller

    def _require(self, right: Right) -> None:
        self._engine.access.require(self._caller, right, SESSIONS)

    @needs("admin")
    def save(
        self,
        name: str | Template,
        *,
        plan: Plan | None = None,
        preferences: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        state: Mapping[str, Any] | None = None,
        description: str = "",
    ) -> None:
        """Write a template, in the place of the one of that name; or a whole `Template`, such as one that was read from
        a file. Raises PlanError for a plan that could not be run, and SessionError.
        """
        if isinstance(name, Template):
            given = {field: getattr(name, field) for field in ("plan", "preferences", "tags", "state", "description")}
            return self.save(name.name, **given)
        engine, tenant = self._engine, self._caller.tenant
        check_text("name of a template", name, _LONGEST_NAME)
        check_text("description of a template", description, 10_000)
        if not name.strip():
            raise SessionError(f"name of a template is empty; allowed: 1 to {_LONGEST_NAME} characters")
        if plan is not None:
            check_plan(plan)
            check_agents(plan.steps, engine.registry)
            check_requests(plan.steps, engine.settings.max_request_bytes)
        tags = words("tags", tags)
        check_count(tags)
        for tag in tags:
            check_text("tag", tag, 200)
        defaults = mapping("state", state)
        for key in defaults:
            check_key(key)
        place = _place(tenant, name)
        data = {
            "plan": None if plan is None else guarded_plan(engine.guard, plan, place).to_dict(),
            **engine.guard.apply({"preferences": dict(mapping("preferences", preferences))}, place),
            "tags": [engine.guard.apply(tag, place) for tag in tags],
            **engine.guard.apply({"state": dict(defaults)}, place),
            "description": engine.guard.apply(description, place),
        }
        text = document_text(engine.settings, f"template {name!r}", data)
        engine.database.write(lambda tx: rows.put(tx, tenant, name, text))

    @needs("read")
    def get(self, name: str) -> Template:
        """The template of that name. Raises TemplateNotFound."""
        return _shown(name, *self._read(name))

    def _read(self, name: str) -> tuple[str, float]:
        tenant = self._caller.tenant
        storable = isinstance(name, str) and serial.is_storable(name)
        found = self._engine.database.read(lambda tx: rows.get(tx, tenant, name)) if storable else None
        if found is None:
            known = self._engine.database.read(lambda tx: [one[0] for one in rows.listing(tx, tenant)])
            raise TemplateNotFound(f"no template {name!r:.80}; there are: {', '.join(known) or 'none'}")
        return found

    @needs("read")
    def list(self) -> Sequence[Template]:
        """All templates, by name."""
        tenant = self._caller.tenant
        return [_shown(*one) for one in self._engine.database.read(lambda tx: rows.listing(tx, tenant))]

    @needs("admin")
    def delete(self, name: str) -> None:
        """Delete a template; sessions that were started from it stay as they are. Raises TemplateNotFound."""
        self._read(name)
        tenant = self._caller.tenant
        self._engine.database.write(lambda tx: rows.remove(tx, tenant, name))

    def applied(self, name: str, plan: Plan | None, order: control.Order) -> tuple[Plan | None, control.Order]:
        """A plan and an order with what they leave out as the template has it. Raises TemplateNotFound."""
        self._require("read")
        engine, place = self._engine, _place(self._caller.tenant, name)
        text, at = self._read(name)
        template = _shown(name, serial.encode(engine.guard.reveal(serial.decode(text), place)).decode(), at)
        order = replace(
            order,
            preferences={**template.preferences, **order.preferences},
            tags=tuple(dict.fromkeys((*template.tags, *order.tags))),
            opened=_opening(engine, template.state) if template.state else None,
        )
        return plan or template.plan, order


def _place(tenant: str, name: str) -> str:
    """What sealed fields of a template are bound to."""
    return f"template:{serial.encode([tenant, name]).decode()}"


def _shown(name: str, text: str, at: float) -> Template:
    data = serial.decode(text)
    plan = None if data["plan"] is None else Plan.from_dict(data["plan"])
    said = {what: data[what] for what in ("description", "preferences", "tags", "state")}
    return Template(name, plan=plan, updated_at=moment(at), **said)


def _opening(engine: Engine, values: Mapping[str, Any]) -> Callable[[Turn, Plan | None], list[events.Hint]]:
    """What makes a session with these values in its scope before any of its steps can begin."""

    def opened(turn: Turn, plan: Plan | None) -> list[events.Hint]:
        hot, scope = turn.hot, str(Scope.session(turn.hot.id))
        state, origin = engine.state.of_tenant(hot.tenant), Origin("template", hot.correlation_id, hot.id)
        if state.capabilities.with_steps:
            plain = {key: copying.Plain(one, state.class_for(scope, key, None), None) for key, one in values.items()}
            copying.put_in(state, turn.tx, scope, plain, origin)
            hot.state_changed = True
        else:
            state.set_many(scope, values, origin=origin)
        return control.begin(engine, turn, plan) if plan is not None else []

    return opened
