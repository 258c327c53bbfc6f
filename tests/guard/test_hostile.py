"""Whatever comes in at a door is either taken whole or refused with one of our errors; nothing else is ever raised."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from celeriac.config import Settings
from celeriac.errors import PlanError, SettingsError
from celeriac.orchestration.guard import Policy
from celeriac.orchestration.plans import Plan

TEXT = st.text(max_size=12) | st.sampled_from(
    ["${a}", "${a.b}", "${item}", "${", "a-0", "query", "\0", "\ud800", "a", "b"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["a", "b", "c", "d_1"])


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Nine times out of ten something good."""
    return st.integers(0, 9).flatmap(lambda n: JSON if n == 0 else good)


NUMBERS = mostly(st.integers(0, 9) | st.floats(0.01, 100))
STEP: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {"name": mostly(NAMES), "agent": mostly(st.just("echo"))},
    optional={
        "request": JSON,
        "after": mostly(st.lists(NAMES, max_size=1)),
        "each": mostly(st.sampled_from(["${a}", "${b.c}"])),
        "when": mostly(st.sampled_from(["${a}", "${a.n} > 3", "not ${b}"])),
        "retries": mostly(st.integers(0, 3)),
        "backoff": NUMBERS,
        "timeout": NUMBERS,
        "priority": mostly(st.integers(0, 9)),
        "queue": mostly(st.just("fast")),
        "plan": mostly(st.just([])),
    },
)
PLAN = mostly(st.fixed_dictionaries({"name": mostly(st.just("p")), "steps": mostly(st.lists(STEP, max_size=3))}))


@given(PLAN)
@settings(max_examples=300, deadline=None)
def test_any_document_is_a_plan_or_a_plan_error(document: Any) -> None:
    try:
        plan = Plan.from_dict(document)
    except PlanError as refusal:
        assert str(refusal)
        return
    again = Plan.from_dict(json.loads(json.dumps(plan.to_dict())))
    assert again == plan and again.fingerprint == plan.fingerprint


VALUES = JSON | st.binary(max_size=5) | st.just(object())


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "other", ""]), VALUES, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_values_are_settings_or_one_settings_error(values: dict[str, Any]) -> None:
    try:
        loaded = Settings.load(values, environ={})
    except SettingsError as refusal:
        assert all(name in str(refusal) for name in values if name == "other")
        return
    assert set(loaded.shown()) == set(Settings.model_fields)


@given(
    st.dictionaries(st.sampled_from([f"CELERIAC_{n.upper()}" for n in Settings.model_fields]), st.text(), max_size=3)
)
@settings(max_examples=200, deadline=None)
def test_any_environment_is_settings_or_one_settings_error(environ: dict[str, str]) -> None:
    try:
        Settings.load(environ=environ)
    except SettingsError as refusal:
        assert "CELERIAC_" in str(refusal)


RULES = st.dictionaries(
    st.sampled_from(["texts", "shown", "fields", "patterns", "other"]),
    JSON
    | st.lists(st.sampled_from(["api-keys", "emails"]))
    | st.lists(
        st.fixed_dictionaries({}, optional={"path": TEXT, "name": TEXT, "pattern": TEXT | st.text(), "action": TEXT}),
        max_size=2,
    ),
    max_size=3,
)


@given(RULES, JSON)
@settings(max_examples=300, deadline=None)
def test_any_rules_are_a_policy_or_a_settings_error(rules: dict[str, Any], value: Any) -> None:
    try:
        policy = Policy.load(rules)
    except SettingsError as refusal:
        assert str(refusal).startswith("guard_rules")
        return
    policy.apply({"a": value}, "here")
    policy.text(str(value))
