"""Encryption at rest: bytes sealed with AES-256-GCM under keys of a key ring, bound to the place where they lie.

Each object has a fresh data key, which is wrapped by the active key of the ring (envelope). What is sealed opens only
for the tenant, the place and the version that it was sealed for: two objects cannot be swapped, moved, cut or rolled
back. A new active key needs no new encryption: `rewrap` wraps the data key anew.

    CLS1, algorithm, length of key id, key id, fingerprint of the key | nonce | data key, wrapped | nonce | sealed data

Nonces are random, 96 bits; a key of the ring wraps 2^32 data keys at most before it should be replaced (NIST SP
800-38D, 8.3). A data key seals one object.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ...errors import KeyMissing, SealBroken, TooLarge
from . import keyfile
from .keyfile import KEY_BYTES, Keys, Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: The variable that holds a whole key ring: `id:base64,id:base64`; the first is active.
VARIABLE: Final = "CELERIAC_KEYS"
#: Largest object that is sealed at once, in bytes: what AES-GCM takes here.
MOST_BYTES: Final = (1 << 31) - 64

_MARK: Final = b"CLS1"
_AES_256_GCM: Final = 1
_NONCE: Final = 12
_TAG: Final = 16
_WRAPPED: Final = KEY_BYTES + _TAG
_FINGERPRINT: Final = 8
_PLACE: Final = struct.Struct(">II q")


class HasKeys(Protocol):
    """What a key ring is loaded from: the settings."""

    @property
    def keys_file(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Key:
    """A key of the ring, ready to wrap data keys: what a sealed object begins with, and the cipher."""

    header: bytes
    cipher: AESGCM


class KeyRing:
    """Keys by id, one of them active. Safe to share between threads, and across forks.

    Making one derives nothing and imports nothing: a key that comes from a passphrase is derived when it is first used.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._ready: dict[str, _Key] = {}
        self._hash_key = keys.hash

    @classmethod
    def load(cls, settings: HasKeys, environ: Mapping[str, str] | None = None) -> KeyRing | None:
        """The key ring of CELERIAC_KEYS, else of the file that `keys_file` names; None where neither is set.

        Raises SettingsError for keys that cannot be used, and for a file that others may read.
        """
        environ = os.environ if environ is None else environ
        if text := environ.get(VARIABLE):
            return cls(keyfile.from_text(text, VARIABLE))
        if not settings.keys_file:
            return None
        return cls(keyfile.read(keyfile.path_of(settings.keys_file), environ))

    @property
    def active(self) -> str:
        """The id of the key that seals."""
        return self._keys.active

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all keys."""
        return tuple(self._keys.secrets)

    @property
    def hashes(self) -> bool:
        """Whether there is a key to hash with."""
        return self._hash_key is not None

    @property
    def public(self) -> Keys | None:
        """What can lie beside what is sealed: how keys are made from a passphrase. None where the active one is not."""
        derived = {key_id: one for key_id, one in self._keys.secrets.items() if isinstance(one, keyfile.Derived)}
        return Keys(self._keys.active, dict(derived)) if self._keys.active in derived else None

    def fingerprint(self, key_id: str) -> str:
        """A short digest of a key, to tell keys apart; it does not give the key away. Raises KeyMissing."""
        return self._key(key_id).header[-_FINGERPRINT:].hex()

    # -- sealing -----------------------------------------------------------------------------------------------------

    def seal(self, data: bytes, *, place: str, version: int = 0, tenant: str = "") -> bytes:
        """`data` encrypted and bound to tenant, place and version. Raises KeyMissing, TooLarge."""
        if len(data) > MOST_BYTES:
            raise TooLarge(f"{place} has {len(data):,} bytes; at most {MOST_BYTES:,} can be sealed at once")
        key = self._key(self._keys.active)
        fresh = os.urandom(KEY_BYTES + 2 * _NONCE)
        data_key, first, second = fresh[:KEY_BYTES], fresh[KEY_BYTES:-_NONCE], fresh[-_NONCE:]
        wrapped = key.cipher.encrypt(first, data_key, key.header)
        sealed = _cipher(data_key).encrypt(second, data, _bound(tenant, place, version))
        return b"".join((key.header, first, wrapped, second, sealed))

    def open(self, sealed: bytes, *, place: str, version: int = 0, tenant: str = "") -> bytes:
        """What was sealed for that tenant, place and version. Raises SealBroken and KeyMissing, naming the place."""
        data_key, rest = self._unwrapped(sealed, place)
        nonce, body = rest[:_NONCE], rest[_NONCE:]
        try:
            data: bytes = _cipher(data_key).decrypt(nonce, body, _bound(tenant, place, version))
        except Exception:
            raise SealBroken(
                f"what is sealed at {_shown(place)} (version {version}) does not open: it was changed, cut, or sealed "
                "for another place, version or tenant"
            ) from None
        return data

    def rewrap(self, sealed: bytes, place: str = "a sealed object") -> bytes | None:
        """The same object under the active key, or None if it is under that key already.

        What is inside is not decrypted. Raises SealBroken and KeyMissing.
        """
        key = self._key(self._keys.active)
        if sealed.startswith(key.header):
            return None
        data_key, rest = self._unwrapped(sealed, place)
        nonce = os.urandom(_NONCE)
        return b"".join((key.header, nonce, key.cipher.encrypt(nonce, data_key, key.header), rest))

    def _unwrapped(self, sealed: bytes, place: str) -> tuple[bytes, bytes]:
        key_id, header = _header(sealed, place)
        key = self._key(key_id, place)
        if not hmac.compare_digest(key.header, header):
            raise KeyMissing(
                f"the key {key_id!r} of the ring ({key.header[-_FINGERPRINT:].hex()}) is not the key {key_id!r} that "
                f"{_shown(place)} was sealed with ({header[-_FINGERPRINT:].hex()}); put that one back, under the same "
                "id"
            )
        start = len(header)
        nonce, wrapped = sealed[start : start + _NONCE], sealed[start + _NONCE : start + _NONCE + _WRAPPED]
        try:
            return key.cipher.decrypt(nonce, wrapped, header), sealed[start + _NONCE + _WRAPPED :]
        except Exception:
            raise SealBroken(
                f"what is sealed at {_shown(place)} does not open: its data key was changed or cut"
            ) from None

    def _key(self, key_id: str, place: str = "") -> _Key:
        ready = self._ready.get(key_id)
        if ready is None:
            secret = self._keys.secrets.get(key_id)
            if secret is None:
                what = f"{_shown(place)} was sealed with the key {key_id!r}, which" if place else f"the key {key_id!r}"
                raise KeyMissing(f"{what} is not in the key ring; it has: {', '.join(self.ids)}")
            ready = self._ready[key_id] = _made(key_id, secret)
        return ready

    # -- hashing -----------------------------------------------------------------------------------------------------

    def digest(self, text: str) -> str:
        """A keyed hash of the text (BLAKE2b, 128 bits, hexadecimal): equal texts give equal hashes, and who has no key
        cannot try texts out. Changing keys does not change it. Raises KeyMissing if the ring has no hash key.
        """
        return self.mac(text.encode("utf-8", "surrogatepass"), b"celeriac-hash", 16).hex()

    def mac(self, data: bytes, use: bytes, size: int) -> bytes:
        """As `digest`, of bytes: `size` bytes, other ones for each use (16 bytes at most). Raises KeyMissing."""
        if self._hash_key is None:
            raise KeyMissing(
                'the key ring has no key to hash with: add `hash = "..."` to keys_file, or hash:... to '
                f"{VARIABLE} (`celeriac keys generate` writes one)"
            )
        return hashlib.blake2b(data, key=self._hash_key, digest_size=size, person=use).digest()


def key_of(sealed: bytes, place: str = "a sealed object") -> str:
    """The id of the key that an object was sealed with. Raises SealBroken if it is no sealed object."""
    return _header(sealed, place)[0]


def is_sealed(data: bytes) -> bool:
    """Whether the bytes begin as a sealed object does."""
    return data.startswith(_MARK)


def _shown(place: str) -> str:
    """A place in an error: its parts are apart by null bytes."""
    return repr(place.replace("\0", "/"))


def _header(sealed: bytes, place: str) -> tuple[str, bytes]:
    """Key id and header of a sealed object."""
    start = len(_MARK) + 2
    length = sealed[start - 1] if len(sealed) > start else 0
    end = start + length + _FINGERPRINT
    if not sealed.startswith(_MARK) or not length or len(sealed) < end + _NONCE + _WRAPPED + _NONCE + _TAG:
        raise SealBroken(f"what lies at {_shown(place)} is not a sealed object, or was cut")
    if sealed[len(_MARK)] != _AES_256_GCM:
        raise SealBroken(f"what lies at {_shown(place)} is sealed with an unknown algorithm ({sealed[len(_MARK)]})")
    return sealed[start : start + length].decode("utf-8", "replace"), sealed[:end]


def _made(key_id: str, secret: Secret) -> _Key:
    material = secret.material()
    name = key_id.encode()
    fingerprint = hashlib.blake2b(material, digest_size=_FINGERPRINT, person=b"celeriac-key").digest()
    header = b"".join((_MARK, bytes((_AES_256_GCM, len(name))), name, fingerprint))
    return _Key(header, _cipher(material))


def _cipher(key: bytes) -> Any:
    return _aesgcm()(key)


def _aesgcm() -> Any:
    global _AESGCM
    if _AESGCM is None:
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM as found
        except ModuleNotFoundError:
            raise KeyMissing(
                "keys are set, but cryptography is not installed: pip install 'celeriac[crypto]'"
            ) from None
        _AESGCM = found
    return _AESGCM


_AESGCM: Any = None


def _bound(tenant: str, place: str, version: int) -> bytes:
    """What the sealed data is bound to. Lengths first, so that no two triples give the same bytes."""
    t, p = tenant.encode("utf-8", "surrogatepass"), place.encode("utf-8", "surrogatepass")
    return b"".join((_MARK, _PLACE.pack(len(t), len(p), version), t, p))


__all__ = ["MOST_BYTES", "VARIABLE", "HasKeys", "KeyMissing", "KeyRing", "SealBroken", "is_sealed", "key_of"]
