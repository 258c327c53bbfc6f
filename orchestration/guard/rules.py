"""The rules of the guard, as the setting `guard_rules` gives them: a table in the settings file, or a file of its own.

texts = ["api-keys", "bearer-tokens"]      # shipped patterns, taken out of every text in every value
shown = ["assignments"]                    # the same for error texts and log lines only

[[fields]]
path = "customer.email"                    # the end of a path: at any depth; * stands for part of a name
action = "hash"                            # redact (as if none is given), hash or encrypt

[[patterns]]
name = "ticket"
pattern = "TK-[0-9]{6}"
action = "redact"                          # or hash
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ...errors import SettingsError
from . import patterns
from .patterns import PrivateKey, Text

FIELD_ACTIONS: Final = ("redact", "hash", "encrypt")
TEXT_ACTIONS: Final = ("redact", "hash")
_NAME: Final = re.compile(r"[^.*\"\\\x00-\x1f]*\*?[^.*\"\\\x00-\x1f]*")


@dataclass(frozen=True, slots=True)
class Field:
    """A rule for fields whose path ends so. Each part is (start of the name, end of it or None for the whole name)."""

    parts: tuple[tuple[str, str | None], ...]
    action: str

    def holds(self, path: list[str]) -> bool:
        """Whether the rule is for the field at that path (names as `folded` gives them)."""
        if len(path) < len(self.parts):
            return False
        return all(_fits(part, name) for part, name in zip(reversed(self.parts), reversed(path), strict=False))

    def may_end(self, name: str) -> bool:
        """Whether the rule may be for a field of that name."""
        return _fits(self.parts[-1], name)


@dataclass(frozen=True, slots=True)
class TextRule:
    """A pattern and what is done with what it finds."""

    text: Text | PrivateKey
    action: str = "redact"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a policy is made of: rules for fields, for texts in values, and for texts that are shown."""

    fields: tuple[Field, ...] = ()
    texts: tuple[TextRule, ...] = ()
    shown: tuple[TextRule, ...] = ()


def folded(name: str) -> str:
    """A name as rules compare it: `API-Key` and `api_key` are one."""
    return name.casefold().replace("-", "_")


def _fits(part: tuple[str, str | None], name: str) -> bool:
    start, end = part
    if end is None:
        return name == start
    return len(name) >= len(start) + len(end) and name.startswith(start) and name.endswith(end)


def load(value: str | Mapping[str, Any]) -> Rules:
    """The rules of the setting `guard_rules`: a table, the path of a TOML file, or nothing. Raises SettingsError."""
    if isinstance(value, str):
        if not value:
            return Rules(shown=_shipped(patterns.USUAL, "shown"))
        path = Path(value).expanduser()
        return _rules(_read(path), f"guard_rules ({path})")
    return _rules(value, "guard_rules")


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except OSError as fault:
        raise SettingsError(f"guard_rules names the file {path}, which cannot be read: {fault.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise SettingsError(f"guard_rules names the file {path}, which is not TOML: {fault}") from None


def _rules(table: Mapping[str, Any], where: str) -> Rules:
    _known(table, ("texts", "shown", "fields", "patterns"), where)
    texts = _shipped(table.get("texts", ()), f"{where}: texts")
    shown = _shipped(table.get("shown", patterns.USUAL), f"{where}: shown")
    fields = tuple(_field(one, f"{where}: fields, rule {n}") for n, one in _tables(table, "fields", where))
    own = tuple(_pattern(one, f"{where}: patterns, rule {n}") for n, one in _tables(table, "patterns", where))
    # What is taken out of values is taken out of what is shown, too.
    beside = tuple(rule for rule in shown if rule.text.name not in {one.text.name for one in texts})
    return Rules(fields, (*texts, *own), (*texts, *own, *beside))


def _shipped(names: Any, where: str) -> tuple[TextRule, ...]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise SettingsError(f"{where} is not allowed; allowed: a list of {', '.join(patterns.SHIPPED)}")
    for name in names:
        if name not in patterns.SHIPPED:
            raise SettingsError(f"{where}: no pattern {name!r}; there are: {', '.join(patterns.SHIPPED)}")
    return tuple(TextRule(text) for name in dict.fromkeys(names) for text in patterns.SHIPPED[name])


def _tables(table: Mapping[str, Any], name: str, where: str) -> list[tuple[int, Mapping[str, Any]]]:
    found = table.get(name, ())
    if not isinstance(found, list | tuple) or not all(isinstance(one, Mapping) for one in found):
        raise SettingsError(f"{where}: {name} is not allowed; allowed: a list of tables, [[guard_rules.{name}]]")
    return list(enumerate(found, 1))


def _field(rule: Mapping[str, Any], where: str) -> Field:
    _known(rule, ("path", "action"), where)
    path = rule.get("path")
    names = path.split(".") if isinstance(path, str) else []
    if not names or not all(name and _NAME.fullmatch(name) for name in names):
        raise SettingsError(
            f"{where}: path = {path!r:.80} is not allowed; allowed: names separated by dots, each with one * at most"
        )
    parts = tuple(_part(folded(name)) for name in names)
    return Field(parts, _action(rule, FIELD_ACTIONS, where))


def _part(name: str) -> tuple[str, str | None]:
    start, star, end = name.partition("*")
    return start, end if star else None


def _pattern(rule: Mapping[str, Any], where: str) -> TextRule:
    _known(rule, ("name", "pattern", "action"), where)
    name, pattern = rule.get("name"), rule.get("pattern")
    if not isinstance(name, str) or not name or name in patterns.SHIPPED:
        raise SettingsError(f"{where}: name = {name!r:.80} is not allowed; allowed: a name of its own")
    if not isinstance(pattern, str):
        raise SettingsError(f"{where}: pattern = {pattern!r:.80} is not allowed; allowed: a regular expression")
    return TextRule(patterns.own(name, pattern, where), _action(rule, TEXT_ACTIONS, where))


def _action(rule: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> str:
    action = rule.get("action", "redact")
    if action not in allowed:
        raise SettingsError(f"{where}: action = {action!r:.80} is not allowed; allowed: {', '.join(allowed)}")
    return str(action)


def _known(table: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in allowed:
            raise SettingsError(f"{where}: unknown name {name!r:.80}; allowed: {', '.join(allowed)}")
