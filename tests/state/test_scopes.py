"""Scopes as text: injective, whatever characters ids hold."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celeriac.orchestration.state.scopes import KINDS, Scope, ScopeError, check_key

ids = st.text(
    alphabet=st.one_of(
        st.sampled_from(":/%|2F5.*é\n "), st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    ),
    min_size=1,
    max_size=40,
)
scopes = st.one_of(
    st.just(Scope.whole()),
    st.builds(Scope.agent, ids),
    st.builds(Scope.workflow, ids),
    st.builds(Scope.step, ids, ids),
    st.builds(Scope.session, ids),
    st.builds(Scope.custom, ids),
)


@given(scopes)
@example(Scope.step("%", "/"))
@example(Scope.step("%2F", "%25"))
def test_the_text_of_a_scope_stands_for_it_alone(scope: Scope) -> None:
    assert Scope.parse(str(scope)) == scope


@given(scopes, scopes)
@example(Scope.step("%2F", "x"), Scope.step("/", "x"))
@example(Scope.step("a", "b/c"), Scope.step("a/b", "c"))
def test_two_scopes_have_one_text_only_if_they_are_equal(one: Scope, other: Scope) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(st.text(max_size=60))
def test_any_text_is_a_scope_with_a_canonical_text_or_an_error(text: str) -> None:
    try:
        scope = Scope.parse(text)
    except ScopeError:
        return
    assert Scope.parse(str(scope)) == scope


def test_ids_of_a_step_are_told_apart_whatever_slashes_they_hold() -> None:
    assert str(Scope.step("a/b", "c")) == "step:a%2Fb/c"
    assert str(Scope.step("a", "b/c")) == "step:a/b%2Fc"
    assert Scope.parse("step:50%25/x") == Scope.step("50%", "x")


def test_the_texts_of_the_specification_are_scopes() -> None:
    texts = ["global", "agent:analyzer", "workflow:demo", "step:demo/report", "session:0193", "custom:mine"]
    assert [str(Scope.parse(text)) for text in texts] == texts
    assert {Scope.parse(text).kind for text in texts} == set(KINDS)


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "is no scope; there are: global, agent:ID"),
        ("agnet:x", "'agnet:x' is no scope; there are: global, agent:ID"),
        ("agent:", "id of scope agent is empty"),
        ("agent", "id of scope agent is empty"),
        ("global:x", "global has no id"),
        ("step:only", "expected step:WORKFLOW/STEP"),
        ("step:a/b/c", "expected step:WORKFLOW/STEP"),
        ("step:a%41/b", "a % is written %25"),
        ("step:a%", "expected step:WORKFLOW/STEP"),
        ("step:a%/b", "a % is written %25"),
        ("agent:a\0b", "holds a null byte"),
        ("agent:\ud800", "half of a surrogate pair at character 0"),
        ("agent:" + "é" * 257, "is 514 bytes long; at most 512"),
        (7, "a scope is text or a Scope, not int"),
    ],
)
def test_what_is_no_scope_is_refused_with_what_there_is(text: Any, said: str) -> None:
    with pytest.raises(ScopeError, match=said):
        Scope.parse(text)


@pytest.mark.parametrize(
    "kind, given", [("agent", ("a", "b")), ("global", ("x",)), ("planet", ("x",)), ("agent", (1,))]
)
def test_a_scope_that_is_built_by_hand_is_checked_too(kind: str, given: Any) -> None:
    with pytest.raises(ScopeError):
        Scope(kind, given)


@pytest.mark.parametrize(
    "key, said",
    [
        ("", "key is empty"),
        ("a\0", "null byte"),
        ("\udfff", "surrogate"),
        ("x" * 1025, "1,025 bytes"),
        (3, "key is int"),
    ],
)
def test_what_is_no_key_is_refused(key: Any, said: str) -> None:
    with pytest.raises(ScopeError, match=said):
        check_key(key)
