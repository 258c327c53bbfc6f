"""What the rules name is redacted, hashed or sealed wherever it stands, and nothing else; and it never takes long."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celeriac.errors import KeyMissing, SealBroken, SettingsError
from celeriac.orchestration.guard import Policy
from celeriac.orchestration.guard.patterns import SHIPPED
from celeriac.storage.keys.keyfile import Keys, new_key
from celeriac.storage.keys.sealing import KeyRing

RING = KeyRing(Keys("k1", {"k1": new_key()}, b"h" * 32))
HERE = "session:1"

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=25,
)
KEYS = "sk-" + "a1B2" * 8
SECRETS = {
    "api-keys": [
        KEYS,
        "ghp_" + "a1B2" * 9,
        "github_pat_" + "a1" * 20,
        "glpat-" + "x" * 20,
        "AKIAIOSFODNN7EXAMPLE",
        "AIza" + "b" * 35,
        "xoxb-1234567890-abcdefghij",
        "hf_" + "c" * 34,
        "npm_" + "d" * 36,
        "pypi-" + "e" * 60,
        "sk_live_" + "f" * 24,
        "SG." + "g" * 22 + "." + "h" * 43,
    ],
    "bearer-tokens": ["Bearer abc.def-ghi_jkl", "authorization: basic dXNlcjpwYXNz", "eyJhbGciOiJI.eyJzdWIiOiIx.c2ln"],
    "url-passwords": [
        "postgresql://me:hunter2@db/x",
        "amqps://u:p%40ss@h",
        "redis://:hunter2@h:6379/0",
        "db://me:hun/ter2@h",
    ],
    "assignments": [
        "password=hunter2",
        "PASSWORD: hunter2",
        '"api_key": "hunter2"',
        "'client_secret' => 'hunter2'",
        '{\\"token\\": \\"hunter2\\"}',
        "Authorization: Token hunter2",
        "db_passwd = hunter2",
    ],
    "emails": ["ana.m+x@mail.example.org"],
}


def policy(**rules: Any) -> Policy:
    return Policy.load(rules, RING)


def fields(action: str, *paths: str) -> Policy:
    return policy(fields=[{"path": path, "action": action} for path in paths])


# -- texts -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "secret"), [(name, one) for name, found in SECRETS.items() for one in found])
def test_shipped_patterns_take_secrets_out_of_a_text(name: str, secret: str) -> None:
    text = policy(shown=[name]).text(f"it failed with {secret} and went on")
    assert "[redacted]" in text and text.startswith("it failed with ") and text.endswith(" and went on")
    for part in ("hunter2", "ter2", "dXNlcjpwYXNz", "p%40ss", "def-ghi", "a1B2a1B2", "EXAMPLE", "ana.m", "abcdefghij"):
        assert part not in text


def test_a_private_key_goes_whole_and_what_follows_stays() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIE\nabc+/=\n-----END RSA PRIVATE KEY-----"
    usual = Policy.load("")
    assert usual.text(f"a {key} b {key} c") == "a [redacted] b [redacted] c"
    assert usual.text(f"a {key[:50]}") == "a [redacted]"
    assert usual.text("-----BEGIN CERTIFICATE-----") == "-----BEGIN CERTIFICATE-----"


@pytest.mark.parametrize(
    "text",
    [
        "step 'analyze' failed: ValueError: max_tokens=4096 exceeded after 3 tokens",
        "http://127.0.0.1:8080/path?x=1 answered 404",
        "git@host is no address here; see https://example.org/a@b",
        "the password is wrong; the secret garden; a token ring",
        "redis://me:***@h",
        "",
    ],
)
def test_plain_texts_are_left_alone(text: str) -> None:
    assert Policy.load("").text(text) == text


def test_without_rules_values_are_left_alone_and_are_the_same_object() -> None:
    value = {"password": "x", "text": KEYS}
    assert Policy.load("").apply(value, HERE) is value and not Policy.load("").active


# -- values ------------------------------------------------------------------------------------------------------------


def test_fields_are_found_at_any_depth_whatever_they_hold_and_however_they_are_written() -> None:
    value = {"password": "x", "a": [{"b": {"Pass-Word": 1, "PASSWORD": ["x", {"y": 1}], "passwords": 2}}], "c": None}
    assert fields("redact", "password", "pass_word").apply(value, HERE) == {
        "password": "[redacted]",
        "a": [{"b": {"Pass-Word": "[redacted]", "PASSWORD": "[redacted]", "passwords": 2}}],
        "c": None,
    }
    assert value["password"] == "x"


def test_a_path_names_the_end_of_where_a_field_is_and_a_star_a_part_of_a_name() -> None:
    value = {
        "customer": {"email": 1, "deep": {"email": 2}},
        "email": 3,
        "x": {"customer": [{"email": 4}]},
        "api_token": 5,
    }
    guarded = fields("redact", "customer.email", "*_token").apply(value, HERE)
    assert guarded == {
        "customer": {"email": "[redacted]", "deep": {"email": 2}},
        "email": 3,
        "x": {"customer": [{"email": "[redacted]"}]},
        "api_token": "[redacted]",
    }
    assert fields("redact", "customer.*.email").apply(value, HERE)["customer"]["deep"]["email"] == "[redacted]"


def test_patterns_are_taken_out_of_values_and_of_names() -> None:
    guard = policy(texts=["api-keys"], patterns=[{"name": "ticket", "pattern": "TK-[0-9]{6}", "action": "hash"}])
    guarded = guard.apply({"log": [f"used {KEYS}."], KEYS: 1, "t": "TK-123456"}, HERE)
    assert guarded == {
        "log": ["used [redacted]."],
        "[redacted]": 1,
        "t": f"[hash:{RING.digest('TK-123456')}]",
    }
    assert guard.apply(f"only {KEYS}", HERE) == "only [redacted]"
    assert guard.text(f"{KEYS} TK-123456") == f"[redacted] {guarded['t']}"


@given(JSON)
def test_sealed_fields_come_back_as_they_were(value: Any) -> None:
    guard = fields("encrypt", "secret")
    guarded = guard.apply({"secret": value, "a": [{"secret": value}]}, HERE)
    again = guard.apply(guarded, HERE)
    assert guard.reveal(guarded, HERE) == guard.reveal(again, HERE) == {"secret": value, "a": [{"secret": value}]}
    assert again == guarded
    assert value is None or set(guarded["secret"]) == {"$sealed"}


@given(JSON, JSON)
def test_hashes_are_equal_exactly_where_values_are(a: Any, b: Any) -> None:
    guard = fields("hash", "id")
    first, second = (guard.apply({"id": one}, HERE)["id"] for one in (a, b))
    assert (first == second) == (json.dumps(a) == json.dumps(b)) or a == b
    assert guard.apply({"id": first}, HERE)["id"] == first


@given(JSON, st.text(min_size=1).filter(lambda s: "." not in s))
def test_nothing_else_is_touched(value: Any, name: str) -> None:
    guard = policy(fields=[{"path": "this-is-in-no-value"}], texts=list(SECRETS))
    wrapped = {"name": value}
    assert guard.apply(wrapped, HERE) == wrapped or "[redacted]" in json.dumps(guard.apply(wrapped, HERE))


@given(st.lists(st.sampled_from(["a", "B", "c-d", "é"]), min_size=1, max_size=6), st.integers(1, 6))
def test_no_depth_and_no_spelling_hides_a_field(path: list[str], tail: int) -> None:
    value: Any = "hunter2"
    for name in reversed(path):
        value = [{name.upper(): value}]
    rule = ".".join(path[-tail:])
    assert "hunter2" not in json.dumps(fields("redact", rule).apply(value, HERE))


def test_a_sealed_field_opens_only_where_it_was_sealed() -> None:
    guarded = fields("encrypt", "secret").apply({"secret": "x"}, HERE)
    with pytest.raises(SealBroken):
        fields("encrypt", "secret").reveal(guarded, "session:2")
    with pytest.raises(KeyMissing):
        Policy.load("").reveal(guarded, HERE)
    for token in ("", "AAAA", "!", 7, None):
        with pytest.raises(SealBroken):
            fields("encrypt", "secret").reveal({"$sealed": token}, HERE)


def test_references_of_a_request_are_left_to_be_filled_in() -> None:
    guard = fields("redact", "token")
    request = {"token": "${login.token}", "a": {"token": "x ${login.token}"}}
    assert guard.apply(request, HERE, references=True) == {"token": "${login.token}", "a": {"token": "[redacted]"}}
    assert guard.apply(request, HERE)["token"] == "[redacted]"


def test_what_is_no_json_is_left_for_the_writer_to_refuse() -> None:
    value = {"password": object(), "x": {1, 2}, "y": b"z", 5: "q", "text": "half \ud800"}
    guarded = policy(fields=[{"path": "password"}], texts=["emails"]).apply(value, HERE)
    assert guarded["x"] == {1, 2} and guarded["password"] == "[redacted]" and guarded["text"] == "half \ud800"
    endless: list[Any] = ["password"]
    endless.append(endless)
    fields("redact", "password").apply(endless, HERE)


# -- rules that are wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"field": []}, "unknown name 'field'; allowed: texts, shown, fields, patterns"),
        ({"texts": "api-keys"}, "texts is not allowed; allowed: a list of private-keys, api-keys"),
        ({"texts": ["keys"]}, "texts: no pattern 'keys'; there are: private-keys, api-keys"),
        ({"fields": {"path": "a"}}, "fields is not allowed; allowed: a list of tables"),
        ({"fields": [{"path": "a"}, {"name": "a"}]}, "fields, rule 2: unknown name 'name'; allowed: path, action"),
        ({"fields": [{"path": "a..b"}]}, "path = 'a..b' is not allowed"),
        ({"fields": [{"path": "**"}]}, "path = '**' is not allowed"),
        ({"fields": [{"path": 'a"b'}]}, "is not allowed; allowed: names separated by dots"),
        (
            {"fields": [{"path": "a", "action": "drop"}]},
            "action = 'drop' is not allowed; allowed: redact, hash, encrypt",
        ),
        ({"patterns": [{"name": "x"}]}, "pattern = None is not allowed"),
        ({"patterns": [{"pattern": "x"}]}, "name = None is not allowed"),
        ({"patterns": [{"name": "x", "pattern": "("}]}, "is not a regular expression"),
        ({"patterns": [{"name": "x", "pattern": "a*"}]}, "it would match everywhere"),
        ({"patterns": [{"name": "x", "pattern": "ab", "action": "encrypt"}]}, "allowed: redact, hash"),
        ({"patterns": [{"name": "x", "pattern": "(a+)+b"}]}, "could take very long"),
        ({"patterns": [{"name": "x", "pattern": "(a|aa)+b"}]}, "could take very long"),
        ({"patterns": [{"name": "x", "pattern": "(.*)(.*)b"}]}, "could take very long"),
        ({"patterns": [{"name": "x", "pattern": "a.*b.*c"}]}, "could take very long"),
        ({"patterns": [{"name": "x", "pattern": r"(a)b{1,9}\1"}]}, "could take very long"),
        ({"patterns": [{"name": "x", "pattern": "(?=(a+)+$)ab"}]}, "could take very long"),
    ],
)
def test_a_rule_that_is_wrong_is_said_with_what_is_allowed(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        Policy.load(rules, RING)
    assert said in str(refusal.value) and str(refusal.value).startswith("guard_rules")


@pytest.mark.parametrize(
    "pattern", ["TK-[0-9]+", r"key\s{0,8}=\s{0,8}\S+", "ab{1,300}c", "(?:foo|bar)-[a-z]{4}", "(?i)x-[a-f]{2,40}z"]
)
def test_patterns_that_are_sure_to_end_soon_are_taken(pattern: str) -> None:
    Policy.load({"patterns": [{"name": "own", "pattern": pattern}]})


def test_hashing_and_sealing_need_a_key() -> None:
    for action in ("hash", "encrypt"):
        with pytest.raises(SettingsError, match=f"action = '{action}', which needs a key"):
            Policy.load({"fields": [{"path": "a", "action": action}]})
    with pytest.raises(KeyMissing, match="no key to hash with"):
        Policy.load({"fields": [{"path": "a", "action": "hash"}]}, KeyRing(Keys("k", {"k": new_key()})))


def test_rules_may_be_a_file_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text('texts = ["api-keys"]\n[[fields]]\npath = "pin"\n')
    assert Policy.load(str(path)).apply({"pin": 1, "x": KEYS}, HERE) == {"pin": "[redacted]", "x": "[redacted]"}
    path.write_text("texts = ")
    with pytest.raises(SettingsError, match=r"rules\.toml, which is not TOML"):
        Policy.load(str(path))
    with pytest.raises(SettingsError, match="cannot be read"):
        Policy.load(str(tmp_path / "absent.toml"))


# -- time --------------------------------------------------------------------------------------------------------------

ADVERSE = [
    "a", "sk-", "sk-a", "eyJ", "eyJa.", "://", "://a:", "://a:b", "password=", "password: '", "bearer ", "a@", "a@a.",
    "-----BEGIN PRIVATE KEY-----", "-----BEGIN ", "SG.", "xoxb-", "-", "_", ".", " ", "=", "\\\"", "token" * 3 + " ",
    "AKIA", "gh", "key", "@", "Basic  ", "\n",
]  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_twice_the_text_takes_about_twice_the_time_whatever_it_is(name: str) -> None:
    guard = Policy.load({"shown": [name]})
    for piece in ADVERSE:
        for tail in ("", "!", "@", "."):
            times = [_seconds(guard, (piece * size)[:size] + tail) for size in (10_000, 20_000, 40_000)]
            assert times[2] < 0.25, (piece, times)
            assert times[2] < 0.01 or times[2] < 8 * times[0], (piece, times)


def _seconds(guard: Policy, text: str) -> float:
    def once() -> float:
        began = time.process_time()
        guard.text(text)
        return time.process_time() - began

    return min(once(), once())


def test_a_text_that_is_shown_is_cut_before_it_is_looked_through() -> None:
    assert len(Policy.load("").text("x" * 5_000_000)) == 100_003
