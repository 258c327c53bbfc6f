"""Where the keys of a key ring come from: a file that only its owner can read, an environment variable, a passphrase.

    active = "2026-11"
    hash = "base64 of 32 bytes"

    [keys.2026-11]
    key = "base64 of 32 bytes"

    [keys.team]
    scrypt = { salt = "base64", n = 131072, r = 8, p = 1 }    # the passphrase is in CELERIAC_PASSPHRASE

The same as JSON, in a file whose name ends in `.json`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from ...errors import KeyMissing, SettingsError

KEY_BYTES: Final = 32
#: Where the passphrase of keys that are made from one is looked for.
PASSPHRASE: Final = "CELERIAC_PASSPHRASE"
LEAST_PASSPHRASE: Final = 12
#: scrypt: (least, most) of each parameter. The floors are OWASP's; the ceilings keep a forged file from taking all
#: memory and time. Together they may take `MOST_MEMORY` bytes.
SCRYPT: Final = {"n": (1 << 17, 1 << 20), "r": (8, 32), "p": (1, 16)}
MOST_MEMORY: Final = 1 << 30
LEAST_SALT: Final = 16
#: A file of keys is small.
MOST_FILE_BYTES: Final = 1 << 20
#: Not an id: in CELERIAC_KEYS it names the key to hash with.
HASH: Final = "hash"
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")


class Secret(Protocol):
    """A key, or what it is made from."""

    def material(self) -> bytes:
        """The key's 32 bytes. Raises KeyMissing."""
        ...


@dataclass(frozen=True, slots=True)
class Raw:
    """A random key."""

    key: bytes = field(repr=False)

    def material(self) -> bytes:
        """The key."""
        return self.key

    def written(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {"key": base64.b64encode(self.key).decode()}


@dataclass(frozen=True, slots=True)
class Derived:
    """A key made from a passphrase by scrypt."""

    id: str
    salt: bytes
    n: int
    r: int
    p: int
    passphrase: str | None = field(repr=False)

    def material(self) -> bytes:
        """The key; takes 128 * n * r bytes of memory and some tenths of a second. Raises KeyMissing."""
        if not self.passphrase:
            raise KeyMissing(f"the key {self.id!r} is made from a passphrase: put it into {PASSPHRASE}")
        if len(self.passphrase) < LEAST_PASSPHRASE:
            raise KeyMissing(f"the passphrase in {PASSPHRASE} is too short: {LEAST_PASSPHRASE} characters at least")
        most = 128 * self.r * (self.n + self.p + 2) + (1 << 20)
        text = self.passphrase.encode("utf-8", "surrogatepass")
        return hashlib.scrypt(text, salt=self.salt, n=self.n, r=self.r, p=self.p, maxmem=most, dklen=KEY_BYTES)

    def written(self) -> dict[str, Any]:
        """As it stands in a file."""
        return {"scrypt": {"salt": base64.b64encode(self.salt).decode(), "n": self.n, "r": self.r, "p": self.p}}


@dataclass(frozen=True, slots=True)
class Keys:
    """What a ring is made of: keys by id, which of them is active, and the key to hash with, if there is one."""

    active: str
    secrets: dict[str, Raw | Derived]
    hash: bytes | None = field(default=None, repr=False)

    def with_key(self, key_id: str, secret: Raw | Derived) -> Keys:
        """These keys and another one, which is active. Raises SettingsError for an id that is taken or not allowed."""
        if key_id in self.secrets:
            raise SettingsError(f"there is a key {key_id!r} already; the ring has: {', '.join(self.secrets)}")
        _check_id(key_id, "the new key")
        return Keys(key_id, {**self.secrets, key_id: secret}, self.hash or secrets.token_bytes(KEY_BYTES))


def new_key() -> Raw:
    """A random key."""
    return Raw(secrets.token_bytes(KEY_BYTES))


def new_derived(key_id: str, passphrase: str) -> Derived:
    """A key from a passphrase, with a salt of its own. Raises KeyMissing for a passphrase that is too short."""
    made = Derived(key_id, secrets.token_bytes(LEAST_SALT), SCRYPT["n"][0], SCRYPT["r"][0], SCRYPT["p"][0], passphrase)
    made.material()
    return made


def path_of(text: str) -> Path:
    """The file that the setting `keys_file` names."""
    return Path(text).expanduser().absolute()


def read(path: Path, environ: Mapping[str, str]) -> Keys:
    """The keys of a file. Raises SettingsError naming what is wrong, never showing a key."""
    return _parsed(_decoded(_private(path), path), f"keys_file {path}", environ.get(PASSPHRASE))


def from_text(text: str, where: str) -> Keys:
    """The keys in `id:base64,id:base64`; the first is active. Raises SettingsError."""
    found: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        key_id, colon, key = part.partition(":")
        if not colon:
            raise SettingsError(f"{where} is not allowed; allowed: id:base64 for each key, separated by commas")
        if key_id in found:
            raise SettingsError(f"{where} has the key {key_id!r} twice")
        found[key_id] = {"key": key}
    hashed = found.pop(HASH, {}).get("key")
    document = {"active": next(iter(found), ""), "keys": found, **({HASH: hashed} if hashed else {})}
    return _parsed(document, where, None)


def write(path: Path, keys: Keys) -> None:
    """Put a file of keys in the place of the one that is there, whole or not at all; only its owner can read it."""
    text = _json(keys) if path.suffix == ".json" else _toml(keys)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as fault:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise SettingsError(f"keys_file {path} cannot be written: {fault.strerror}") from None


def _private(path: Path) -> bytes:
    """The bytes of a regular file that only its owner can read."""
    try:
        # Not blocking, or a pipe in its place would hold us for ever.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as fault:
        raise SettingsError(f"keys_file {path} cannot be read: {fault.strerror}") from None
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise SettingsError(f"keys_file {path} is not a file")
        if mode & 0o077:
            raise SettingsError(
                f"keys_file {path} can be used by others (mode {stat.S_IMODE(mode):04o}); allowed: 0600 (chmod 600)"
            )
        return os.read(handle, MOST_FILE_BYTES)
    finally:
        os.close(handle)


def _decoded(data: bytes, path: Path) -> dict[str, Any]:
    kind = "JSON" if path.suffix == ".json" else "TOML"
    try:
        text = data.decode()
        found = json.loads(text) if kind == "JSON" else tomllib.loads(text)
    except ValueError:  # its text is not shown: it is full of keys
        raise SettingsError(f"keys_file {path} is not {kind}") from None
    if not isinstance(found, dict):
        raise SettingsError(f"keys_file {path} is not a table with active and keys")
    return found


def _parsed(document: Mapping[str, Any], where: str, passphrase: str | None) -> Keys:
    _known(document, ("active", "keys", HASH), where)
    tables = document.get("keys")
    if not isinstance(tables, dict) or not tables:
        raise SettingsError(f"{where} has no keys; `celeriac keys generate` makes one")
    found = {key_id: _secret(key_id, table, where, passphrase) for key_id, table in tables.items()}
    active = document.get("active")
    if not isinstance(active, str) or active not in found:
        raise SettingsError(f"{where}: active must name one of its keys: {', '.join(found)}")
    hashed = document.get(HASH)
    return Keys(active, found, None if hashed is None else _bytes(hashed, KEY_BYTES, KEY_BYTES, f"{where}: {HASH}"))


def _secret(key_id: str, table: Any, where: str, passphrase: str | None) -> Raw | Derived:
    _check_id(key_id, where)
    what = f"{where}: key {key_id!r}"
    if not isinstance(table, dict) or len(table) != 1:
        raise SettingsError(f"{what} must have either `key` or `scrypt`")
    _known(table, ("key", "scrypt"), what)
    if "key" in table:
        return Raw(_bytes(table["key"], KEY_BYTES, KEY_BYTES, what))
    given = table["scrypt"]
    if not isinstance(given, dict) or set(given) != {"salt", *SCRYPT}:
        raise SettingsError(f"{what}: scrypt must have salt, n, r and p")
    n, r, p = (_bounded(given[name], name, what) for name in SCRYPT)
    if n & (n - 1):
        raise SettingsError(f"{what}: scrypt n = {n} is not allowed; allowed: a power of two")
    if 128 * n * r > MOST_MEMORY or p * n * r > 1 << 24:
        raise SettingsError(f"{what}: scrypt with n = {n}, r = {r}, p = {p} would take too much memory or time")
    return Derived(key_id, _bytes(given["salt"], LEAST_SALT, 64, f"{what}: salt"), n, r, p, passphrase)


def _bounded(value: Any, name: str, what: str) -> int:
    least, most = SCRYPT[name]
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SettingsError(f"{what}: scrypt {name} = {value!r:.40} is not allowed; allowed: {least} to {most}")
    return value


def _bytes(text: Any, least: int, most: int, what: str) -> bytes:
    allowed = f"{least}" if least == most else f"{least} to {most}"
    try:
        data = base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        data = b""
    if not least <= len(data) <= most:
        raise SettingsError(f"{what} is not the base64 of {allowed} bytes")
    return data


def _check_id(key_id: Any, where: str) -> None:
    if not isinstance(key_id, str) or not _ID.fullmatch(key_id) or key_id == HASH:
        raise SettingsError(
            f"{where}: {key_id!r:.60} is not the id of a key; allowed: 1 to 40 of A-Z, a-z, 0-9, _ and -, not {HASH!r}"
        )


def _known(table: Mapping[str, Any], allowed: tuple[str, ...], where: str) -> None:
    for name in table:
        if name not in allowed:
            raise SettingsError(f"{where}: unknown name {name!r:.60}; allowed: {', '.join(allowed)}")


def _json(keys: Keys) -> str:
    hashed = {HASH: base64.b64encode(keys.hash).decode()} if keys.hash else {}
    tables = {key_id: secret.written() for key_id, secret in keys.secrets.items()}
    return json.dumps({"active": keys.active, **hashed, "keys": tables}, indent=2) + "\n"


def _toml(keys: Keys) -> str:
    lines = ["# The keys of Celeriac. Whoever has this file can read all that is sealed; who loses it, nothing."]
    lines.append(f'active = "{keys.active}"')
    if keys.hash:
        lines.append(f'{HASH} = "{base64.b64encode(keys.hash).decode()}"')
    for key_id, secret in keys.secrets.items():
        lines += ["", f"[keys.{key_id}]"]
        for name, value in secret.written().items():
            if isinstance(value, dict):
                inner = ", ".join(f'{k} = "{v}"' if isinstance(v, str) else f"{k} = {v}" for k, v in value.items())
                lines.append(f"{name} = {{ {inner} }}")
            else:
                lines.append(f'{name} = "{value}"')
    return "\n".join(lines) + "\n"
