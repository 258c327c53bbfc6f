"""Scopes: who owns a piece of keyed state, as a typed value and as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ...errors import CeleriacError

#: Longest id and longest key, in bytes of UTF-8.
MAX_ID_BYTES: Final = 512
MAX_KEY_BYTES: Final = 1024
#: How many ids each kind of scope has.
KINDS: Final = {"global": 0, "agent": 1, "workflow": 1, "step": 2, "session": 1, "custom": 1}

_FORMS: Final = "global, agent:ID, workflow:ID, step:WORKFLOW/STEP, session:ID, custom:NAME"
_ESCAPED: Final = re.compile("%(..?)?", re.DOTALL)


class ScopeError(CeleriacError):
    """A scope or a key is not one: unknown kind, empty, too long, or with characters that no backend can hold."""


@dataclass(frozen=True, slots=True)
class Scope:
    """An owner of keyed state: `global`, an agent, a workflow, a step of a workflow, a session, or a name of one's own.

    Two scopes are equal exactly if their texts are. Raises ScopeError for an id that is empty, over 512 bytes, or
    holds a null byte or half a surrogate pair; any other character is allowed.
    """

    kind: str
    ids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        wanted = KINDS.get(self.kind) if isinstance(self.kind, str) else None
        if wanted is None:
            raise ScopeError(f"{self.kind!r} is no kind of scope; there are: {_FORMS}")
        if not isinstance(self.ids, tuple) or len(self.ids) != wanted:
            raise ScopeError(f"scope {self.kind} takes {wanted} ids, not {self.ids!r}")
        for one in self.ids:
            _check(one, f"id of scope {self.kind}", MAX_ID_BYTES)

    def __str__(self) -> str:
        if self.kind == "step":
            return f"step:{_escaped(self.ids[0])}/{_escaped(self.ids[1])}"
        return f"{self.kind}:{self.ids[0]}" if self.ids else self.kind

    @classmethod
    def parse(cls, text: str | Scope) -> Scope:
        """The scope that the text stands for, as `str` gives it. Raises ScopeError.

        In `step:WORKFLOW/STEP` a `/` or `%` that belongs to an id is written `%2F` or `%25`; elsewhere ids stand as
        they are.
        """
        return text if isinstance(text, Scope) else _parsed(text)

    @classmethod
    def whole(cls) -> Scope:
        """The scope `global`."""
        return cls("global")

    @classmethod
    def agent(cls, name: str) -> Scope:
        """What all runs of one agent share."""
        return cls("agent", (name,))

    @classmethod
    def workflow(cls, name: str) -> Scope:
        """What all steps of the plans of one name share."""
        return cls("workflow", (name,))

    @classmethod
    def step(cls, workflow: str, step: str) -> Scope:
        """What all runs of one step of a workflow share."""
        return cls("step", (workflow, step))

    @classmethod
    def session(cls, session_id: str) -> Scope:
        """What belongs to one session."""
        return cls("session", (session_id,))

    @classmethod
    def custom(cls, name: str) -> Scope:
        """A name of one's own."""
        return cls("custom", (name,))


def check_key(key: str) -> str:
    """The key itself. Raises ScopeError for one that is empty, over 1024 bytes, or not storable as text."""
    if type(key) is str and key.isascii() and 0 < len(key) <= MAX_KEY_BYTES and "\0" not in key:
        return key  # as most are, which need no closer look
    return _check(key, "key", MAX_KEY_BYTES)


def check_prefix(prefix: str) -> str:
    """The prefix of keys itself, which may be empty. Raises ScopeError."""
    return _check(prefix, "prefix", MAX_KEY_BYTES) if prefix != "" else prefix


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Scope:
    if not isinstance(text, str):
        raise ScopeError(f"a scope is text or a Scope, not {type(text).__name__}; texts are: {_FORMS}")
    kind, colon, rest = text.partition(":")
    if kind not in KINDS:
        raise ScopeError(f"{_shown(text)} is no scope; there are: {_FORMS}")
    if kind == "global":
        if colon:
            raise ScopeError(f"{_shown(text)} is no scope: global has no id")
        return Scope("global")
    if kind != "step":
        return Scope(kind, (rest,))
    ids = rest.split("/")
    if len(ids) != 2:
        raise ScopeError(
            f"{_shown(text)} is no scope: expected step:WORKFLOW/STEP, with a / that belongs to an id written %2F"
        )
    return Scope("step", (_unescaped(ids[0], text), _unescaped(ids[1], text)))


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("/", "%2F")


def _unescaped(text: str, whole: str) -> str:
    def character(match: re.Match[str]) -> str:
        code = (match[1] or "").upper()
        if code not in ("25", "2F"):
            raise ScopeError(f"{_shown(whole)} is no scope: in step:WORKFLOW/STEP a % is written %25 and a / is %2F")
        return "%" if code == "25" else "/"

    return _ESCAPED.sub(character, text)


def _check(text: str, what: str, most: int) -> str:
    if not isinstance(text, str):
        raise ScopeError(f"{what} is {type(text).__name__}, not text")
    if not text:
        raise ScopeError(f"{what} is empty")
    if "\0" in text:
        raise ScopeError(f"{what} {_shown(text)} holds a null byte")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as fault:
        raise ScopeError(f"{what} {_shown(text)} holds half of a surrogate pair at character {fault.start}") from None
    if size > most:
        raise ScopeError(f"{what} {_shown(text)} is {size:,} bytes long; at most {most:,} are allowed")
    return text


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= 80 else ascii(text[:77] + "...")
