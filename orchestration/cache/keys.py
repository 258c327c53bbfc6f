"""Keys of cached results: a hash over all that decides what an agent answers, and who may see the answer."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from ...errors import CacheError, NotSerializable
from ...storage import serial

#: Part of every key: what is hashed below, and how.
FORMAT: Final = 1
_BYTES: Final = 24


class Key(NamedTuple):
    """The key of a result: the hash, and whose it is in the clear, which is compared with what is read."""

    hash: str
    #: tenant, agent, version, permissions in order
    scope: tuple[str, str, str, tuple[str, ...]]

    def __str__(self) -> str:
        return self.hash


def key_of(agent: str, request: Any, *, version: str, permissions: Iterable[str], tenant: str = "") -> Key:
    """The key of what an agent answers to a request, under the permissions that it is granted.

    The order of an object's keys and of the permissions does not matter; all else does: 1, 1.0, true and "1" are
    different, and so are two ways to write a letter in Unicode. Pydantic models count as their JSON. Raises CacheError
    for a scope that is not text, NotSerializable for a request that is not JSON (NaN is not).
    """
    scope = _scope(tenant, agent, version, frozenset(permissions) if type(permissions) is not str else None)
    # A list in a list can be no other list: this is all of it, without ambiguity.
    parts = [FORMAT, tenant, agent, version, list(scope[3]), request]
    try:
        body = serial.canonical(parts, "key")
    except NotSerializable:
        parts[-1] = _plain(request)
        serial.canonical(parts[-1], f"request to agent {agent!r}")  # names what is wrong with it
        body = serial.canonical(parts, "key")
    return Key(blake2b(body, digest_size=_BYTES).hexdigest(), scope)


@lru_cache(4096)
def _scope(
    tenant: str, agent: str, version: str, permissions: frozenset[str] | None
) -> tuple[str, str, str, tuple[str, ...]]:
    words = (tenant, agent, version, *(permissions or ()))
    if permissions is None or not all(isinstance(word, str) for word in words):
        found = (tenant, agent, version, permissions)
        raise CacheError(f"tenant, agent, version and a list of permissions are text; found {found!r:.200}")
    return tenant, agent, version, tuple(sorted(permissions))


def _plain(value: Any, depth: int = 0) -> Any:
    """The value with the pydantic models in it as their JSON, as deep as JSON may be."""
    if depth > serial.MAX_DEPTH:
        return value
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    return value
