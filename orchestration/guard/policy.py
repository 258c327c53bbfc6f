"""One policy over all values: what is redacted, hashed or sealed in them, at any depth, wherever they are written."""

from __future__ import annotations

import base64
import binascii
import contextlib
import re
from collections.abc import Mapping
from typing import Any, Final

from ...errors import KeyMissing, SealBroken, SettingsError
from ...storage import serial
from ...storage.keys.sealing import KeyRing
from .patterns import REDACTED
from .rules import Field, Rules, TextRule, folded, load

#: The one name of the object that stands in the place of a sealed field.
SEALED: Final = "$sealed"
#: So many names of fields are remembered, with the rules that are for them.
MOST_NAMES: Final = 10_000
#: A text that is shown is looked through for so many characters; the rest of it is left out.
MOST_SHOWN: Final = 100_000

#: The needle of a rule that has none: it is in every text.
EVERY: Final = ("",)

_REFERENCE: Final = re.compile(r"\$\{[^{}]{1,500}\}")


class Policy:
    """What the guard does with values (`apply`, `reveal`) and with texts that people see (`text`).

    `active` says whether values are touched at all. Safe to share between threads. Raises SettingsError for a rule that
    needs a key where none is set.
    """

    def __init__(self, rules: Rules, keyring: KeyRing | None = None) -> None:
        self._rules = rules
        self._keyring = keyring
        self.active = bool(rules.fields or rules.texts)
        #: Whether what an agent's error says is for the session alone, not for logs and events.
        self.withholds = False
        self._names: dict[str, tuple[str, tuple[Field, ...]]] = {}  # bounded: see `rules_for`
        self._text_needles = _needles(rules.texts)
        self._shown_needles = _needles(rules.shown)
        self._field_needles = tuple({_needle(one) for one in rules.fields})
        actions = [*(one.action for one in rules.fields), *(one.action for one in rules.texts)]
        needing = [action for action in actions if action != "redact"]
        if needing and keyring is None:
            raise SettingsError(
                f"guard_rules has a rule with action = {needing[0]!r}, which needs a key: set keys_file or "
                "CELERIAC_KEYS (`celeriac keys generate` makes one)"
            )
        if keyring is not None and "hash" in needing:
            keyring.digest("")

    @classmethod
    def load(cls, rules: str | Mapping[str, Any], keyring: KeyRing | None = None) -> Policy:
        """The policy of the setting `guard_rules`. Raises SettingsError."""
        return cls(load(rules), keyring)

    # -- values ------------------------------------------------------------------------------------------------------

    def apply(self, value: Any, place: str, *, references: bool = False) -> Any:
        """The value with what the rules name redacted, hashed or sealed. The value itself is left as it is.

        `place` is what sealed fields are bound to, such as `session:ID`. With `references`, a field that only refers to
        an output, `${step.path}`, is left to be filled in: that output went through here when it was recorded. What is
        no JSON is given back as it is: whoever writes it refuses it, naming its path.
        """
        if not self.active or value is None:
            return value
        if isinstance(value, str):
            return self._inside(value, self._rules.texts, self._text_needles)
        if not isinstance(value, dict | list | tuple):
            return value
        try:
            plain = serial.loose(value).casefold()
        except Exception:
            return _Pass(self, self._rules.texts, place, references).of(value, [], serial.MAX_DEPTH)
        # One look through its JSON, in C, says which rules can find anything in it: mostly none.
        texts = self._rules_that_may_find(plain, self._rules.texts, self._text_needles)
        if not texts and not _any_in(self._field_needles, plain):
            return value
        return _Pass(self, texts, place, references).of(value, [], serial.MAX_DEPTH)

    def reveal(self, value: Any, place: str, *others: str) -> Any:
        """The value with its sealed fields opened. Raises SealBroken for one that was sealed for none of the places,
        and KeyMissing.
        """
        with contextlib.suppress(Exception):  # what is no JSON is looked through in Python
            if SEALED not in serial.loose(value):
                return value
        return self._revealed(value, (*others, place))

    def _revealed(self, value: Any, places: tuple[str, ...]) -> Any:
        if isinstance(value, dict):
            if _is_sealed(value):
                for other in places[:-1]:
                    with contextlib.suppress(SealBroken):
                        return self._opened(value[SEALED], other)
                return self._opened(value[SEALED], places[-1])
            return {key: self._revealed(one, places) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self._revealed(one, places) for one in value]
        return value

    def told(self, fault: BaseException) -> str:
        """What logs and events say of an agent's fault."""
        return f"{type(fault).__name__} (its text is left out here)" if self.withholds else self.text(repr(fault))

    @property
    def seals(self) -> bool:
        """Whether values may hold sealed fields."""
        return self._keyring is not None

    def rules_for(self, name: str) -> tuple[str, tuple[Field, ...]]:
        """The name of a field as rules compare it, and the rules that may be for it."""
        known = self._names.get(name)
        if known is None:
            plain = folded(name)
            known = plain, tuple(one for one in self._rules.fields if one.may_end(plain))
            if len(self._names) < MOST_NAMES and len(name) < 200:
                self._names[name] = known
        return known

    def done(self, action: str, value: Any, place: str) -> Any:
        """What stands in the place of a field."""
        if action == "redact" or value == REDACTED:
            return REDACTED
        if _is_sealed(value):
            return value
        data = serial.encode(value, what="guarded field")
        assert self._keyring is not None
        if action == "hash":
            return value if _is_hash(value) else f"[hash:{self._keyring.digest(data.decode())}]"
        return {SEALED: base64.b64encode(self._keyring.seal(data, place=place)).decode()}

    def _opened(self, token: Any, place: str) -> Any:
        if self._keyring is None:
            raise KeyMissing(f"{place!r} holds a sealed field, and no keys are set: set keys_file or CELERIAC_KEYS")
        try:
            sealed = base64.b64decode(token, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise SealBroken(f"{place!r} holds a sealed field that was changed") from None
        return serial.decode(self._keyring.open(sealed, place=place))

    # -- texts -------------------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """A text that people see (an error, a line of a log) without secrets, cut to 100,000 characters.

        Works without rules too: then with the shipped patterns but the one for e-mail addresses.
        """
        if len(text) > MOST_SHOWN:
            text = text[:MOST_SHOWN] + "..."
        return self._inside(text, self._rules.shown, self._shown_needles)

    def _inside(self, text: str, rules: tuple[TextRule, ...], needles: tuple[str, ...]) -> str:
        for rule in self._rules_that_may_find(text.casefold(), rules, needles):
            text = self.without(rule, text)
        return text

    def _rules_that_may_find(
        self, plain: str, rules: tuple[TextRule, ...], needles: tuple[str, ...]
    ) -> tuple[TextRule, ...]:
        """The rules that may find anything in a text, given in lower case."""
        if not _any_in(needles, plain):
            return ()
        return tuple(one for one in rules if _any_in(one.text.needles or EVERY, plain))

    def without(self, rule: TextRule, text: str) -> str:
        """The text without what the rule finds in it."""
        return rule.text.sub(text, self._hashed if rule.action == "hash" else _redacted)

    def _hashed(self, secret: str) -> str:
        assert self._keyring is not None
        return f"[hash:{self._keyring.digest(secret)}]"


class _Pass:
    """One pass through a value, with those rules for texts that may find something in it."""

    __slots__ = ("_place", "_policy", "_references", "_texts")

    def __init__(self, policy: Policy, texts: tuple[TextRule, ...], place: str, references: bool) -> None:
        self._policy = policy
        self._texts = texts
        self._place = place
        self._references = references

    def of(self, value: Any, path: list[str], depth: int) -> Any:
        """The value, `depth` levels deep at most, as it is to be written; `path` says where it stands."""
        if isinstance(value, str):
            return self._text(value) if self._texts else value
        if depth == 0 or _is_sealed(value):
            return value
        if isinstance(value, dict):
            return {self._name(key): self._field(key, one, path, depth) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.of(one, path, depth - 1) for one in value]
        return value

    def _name(self, key: Any) -> Any:
        return self._text(key) if self._texts and isinstance(key, str) else key

    def _text(self, text: str) -> str:
        for rule in self._texts:
            text = self._policy.without(rule, text)
        return text

    def _field(self, key: Any, value: Any, path: list[str], depth: int) -> Any:
        plain, rules = self._policy.rules_for(key) if isinstance(key, str) else ("", ())
        if not rules and not isinstance(value, dict | list | tuple):
            return self._text(value) if self._texts and isinstance(value, str) else value
        path.append(plain)
        try:
            for rule in rules:
                if value is not None and rule.holds(path):
                    if self._references and isinstance(value, str) and _REFERENCE.fullmatch(value):
                        return value
                    return self._policy.done(rule.action, value, self._place)
            return self.of(value, path, depth - 1)
        finally:
            path.pop()


def _any_in(needles: tuple[str, ...], text: str) -> bool:
    for needle in needles:  # a loop takes half the time of `any` here  # noqa: SIM110
        if needle in text:
            return True
    return False


def _is_sealed(value: Any) -> bool:
    return isinstance(value, dict) and len(value) == 1 and SEALED in value


def _redacted(_secret: str) -> str:
    return REDACTED


def holds_sealed(value: Any) -> bool:
    """Whether a value holds a sealed field, at any depth."""
    if isinstance(value, dict):
        return _is_sealed(value) or any(map(holds_sealed, value.values()))
    return isinstance(value, list | tuple) and any(map(holds_sealed, value))


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\[hash:[0-9a-f]{32}\]", value) is not None


def _needle(field: Field) -> str:
    """What the JSON of a value holds if the rule is for a field in it: a piece of its name without `_`, which may be
    written `-`.
    """
    start, end = field.parts[-1]
    return max((piece for part in (start, end or "") for piece in part.split("_")), key=len)


def _needles(rules: tuple[TextRule, ...]) -> tuple[str, ...]:
    """Words of which a text holds one if any of the rules can find something in it."""
    return tuple(dict.fromkeys(needle for rule in rules for needle in rule.text.needles or EVERY))


__all__ = ["REDACTED", "SEALED", "Policy", "holds_sealed"]
