"""Sealing on the way into the database and out of it: what `encrypt = "all"` means for rows and blobs.

Each text is an envelope of its own (see `sealing`), as `~CLS1~` and base64: no JSON begins so. It is bound to its
table, column and primary key; where the key has a number that is given once (the epoch of a result, an event, a
checkpoint), that is its version too. Where it has none, as of a title, an old text of the same row could be put back
unnoticed: what tells old from new would have to lie outside of the database. A session's id is in every key and never
given twice, so a text moves neither to another session nor to another tenant.

What lies there plain, from before, reads as it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final, Protocol, TypeVar

from ...errors import KeyMissing, SettingsError
from .sealing import KeyRing, is_sealed

#: What a sealed text begins with.
MARK: Final = "~CLS1~"
#: Texts, some of which are None.
Body = TypeVar("Body", str, str | None)


class Encrypts(Protocol):
    """The settings, as far as a codec needs them."""

    @property
    def encrypt(self) -> str: ...


class Codec:
    """Seals and opens what is stored, under a key ring. `whole`: new rows and blobs are sealed; else only opened."""

    __slots__ = ("hashes", "keyring", "whole")

    def __init__(self, keyring: KeyRing, whole: bool) -> None:
        self.keyring = keyring
        self.whole = whole
        #: Whether there is a key to hash with: without it nothing can have been sealed as a whole.
        self.hashes = keyring.hashes

    @classmethod
    def load(cls, settings: Encrypts, keyring: KeyRing | None) -> Codec | None:
        """The codec of the settings; None without keys. Raises SettingsError where all is to be sealed without them."""
        whole = settings.encrypt == "all"
        if keyring is None:
            if whole:
                raise SettingsError(
                    'encrypt = "all" needs keys: name a keys_file and run `celeriac keys generate`, or set '
                    "CELERIAC_KEYS"
                )
            return None
        if whole:
            try:
                keyring.digest("")
            except KeyMissing as fault:
                raise SettingsError(f'encrypt = "all": {fault}') from None
        return cls(keyring, whole)

    def seal(self, body: str, what: str, *key: object) -> str:
        """A text sealed for a column, as `table.column`, and the primary key of its row."""
        data = body.encode("utf-8", "surrogatepass")
        return MARK + base64.b64encode(self.keyring.seal(data, place=place_of(what, key))).decode()

    def seal_bytes(self, data: bytes, what: str, *key: object) -> bytes:
        """As `seal`, for bytes."""
        return self.keyring.seal(data, place=place_of(what, key))

    def open(self, body: str, what: str, *key: object) -> str:
        """The text that was sealed there. Raises SealBroken and KeyMissing."""
        data = sealed_bytes(body)
        return body if data is None else self.keyring.open(data, place=place_of(what, key)).decode("utf-8", "replace")

    def open_bytes(self, data: bytes, what: str, *key: object) -> bytes:
        """As `open`, for bytes."""
        return self.keyring.open(data, place=place_of(what, key))

    # Digests that are compared with others are keyed, so that nobody who lacks the key can try contents out. The key to
    # hash with stays when others change.

    def digest(self, text: str) -> str:
        """A keyed hash of a text, to look it up by."""
        return self.keyring.digest(text)

    def blob_name(self, data: bytes) -> str:
        """The name of a sealed blob: a keyed hash of its content, so that equal contents are one blob."""
        return self.keyring.mac(data, b"celeriac-blob", 32).hex()

    def checksum(self, data: bytes) -> bytes:
        """A keyed hash of the plain body of a checkpoint: sealing it under another key does not change it."""
        return self.keyring.mac(data, b"celeriac-check", 16)


class Seals:
    """What a transaction does with texts on their way in and out. `what` is table.column, `key` the primary key."""

    __slots__ = ("codec", "seals")

    def __init__(self, codec: Codec | None) -> None:
        self.codec = codec
        #: Whether what users' data can be in is sealed before it is written.
        self.seals = codec is not None and codec.whole

    def seal(self, body: Body, what: str, *key: object) -> Body:
        """A text as it is written: sealed for its place, where all is sealed."""
        if not self.seals or not body or self.codec is None:
            return body
        return self.codec.seal(body, what, *key)

    def open(self, body: Body, what: str, *key: object) -> Body:
        """A text as it was before it was sealed, if it was. Raises SealBroken and KeyMissing."""
        if not body or not body.startswith(MARK):
            return body
        if self.codec is None:
            raise refuse(what, key)
        return self.codec.open(body, what, *key)

    def seal_bytes(self, data: bytes, what: str, *key: object) -> bytes:
        """As `seal`, for bytes."""
        return data if not self.seals or self.codec is None else self.codec.seal_bytes(data, what, *key)

    def open_bytes(self, data: bytes, what: str, *key: object) -> bytes:
        """As `open`, for bytes of a kind that never begin as sealed ones do."""
        if not is_sealed(data):
            return data
        if self.codec is None:
            raise refuse(what, key)
        return self.codec.open_bytes(data, what, *key)


def place_of(what: str, key: tuple[object, ...]) -> str:
    """What a text is bound to: neither columns nor keys hold a null byte, so that no two places are the same."""
    return "\0".join((what, *map(str, key)))


def sealed_bytes(body: str) -> bytes | None:
    """The sealed object in a text; None for a text that is none."""
    if not body.startswith(MARK):
        return None
    try:
        data = base64.b64decode(body[len(MARK) :], validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if is_sealed(data) else None


def refuse(what: str, key: tuple[object, ...]) -> KeyMissing:
    """The error for what is sealed, and was found without any keys."""
    place = "/".join((what, *map(str, key)))
    return KeyMissing(f"{place} is sealed, and no keys are set: name the keys_file, or set CELERIAC_KEYS")


def plain_checksum(data: bytes) -> bytes:
    """The checksum of the body of a checkpoint that is not sealed."""
    return hashlib.blake2b(data, digest_size=16).digest()
