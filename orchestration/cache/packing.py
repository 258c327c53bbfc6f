"""How a result becomes the bytes of an entry, and back: guarded, compressed if large, sealed where there are keys."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from typing import Any, Final

from ...config import Settings
from ...errors import CeleriacError, KeyMissing, StorageError
from ...storage import serial
from ...storage.cache.entries import Entry
from ..agents import AgentOutput, Finding
from ..guard import doors
from .keys import Key

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

logger = logging.getLogger("celeriac.cache")

#: Results of more bytes of JSON than this are compressed.
COMPRESS_OVER: Final = 1024
_LEVEL: Final = 3
_WINDOW_LOG_MAX: Final = 23


def output_of(body: bytes) -> AgentOutput:
    """The output that was kept as this JSON, as if it had been made anew."""
    kept = serial.decode(body)
    kept["findings"] = [Finding(**finding) for finding in kept.get("findings", ())]
    return AgentOutput(**kept)


def content_of(data: Any) -> str:
    """The content hash of a result: SHA-256 over its JSON with sorted keys. Raises NotSerializable."""
    return serial.digest(serial.canonical(data, "result"))


class Packing:
    """Packs results under the guard's policy and the key ring of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._keyring, self._policy = doors.open_for(settings)

    def pack(self, output: AgentOutput, key: Key) -> tuple[bytes, str, int]:
        """The bytes to be stored, how they were made, and how many bytes of JSON they stand for.

        Raises NotSerializable.
        """
        tenant, agent, _, _ = key.scope
        kept = self._policy.apply(_kept(output), _place(key.hash))
        body = serial.encode(kept, what=f"result of agent {agent!r}")
        size, how = len(body), ""
        if size > COMPRESS_OVER:
            packed = zstd.compress(body, _LEVEL)
            if len(packed) < size:
                body, how = packed, "zstd"
        if self._keyring is not None:
            body, how = self._keyring.seal(body, place=_place(key.hash), tenant=tenant), f"{how} sealed".strip()
        return body, how, size

    def unpack(self, entry: Entry) -> bytes | None:
        """The JSON of an entry's result; None for one that cannot be read: it is computed again."""
        body = entry.body
        try:
            if "sealed" in entry.encoding:
                if self._keyring is None:
                    raise KeyMissing("it is sealed, and no keys are set")
                body = self._keyring.open(body, place=_place(entry.key), tenant=entry.tenant)
            if "zstd" in entry.encoding:
                body = _decompressed(body, entry.size)
            if self._policy.active and self._policy.seals:
                body = serial.encode(self._policy.reveal(serial.decode(body), _place(entry.key)))
        except CeleriacError as fault:
            logger.warning("the cached result %s of agent %s cannot be read: %s", entry.key, entry.agent, fault)
            return None
        return body


def _kept(output: AgentOutput) -> dict[str, Any]:
    kept: dict[str, Any] = {"data": output.data}
    if output.findings:
        kept["findings"] = [asdict(finding) for finding in output.findings]
    for name in ("confidence", "cost"):
        if getattr(output, name) is not None:
            kept[name] = getattr(output, name)
    return kept


def _decompressed(body: bytes, size: int) -> bytes:
    reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG_MAX})
    try:
        data = reader.decompress(body, max_length=size + 1)  # a bomb gets no further
    except zstd.ZstdError as fault:
        raise StorageError(f"it is damaged: {fault}") from fault
    if len(data) != size or not reader.eof:
        raise StorageError("it is damaged: its length is not the one recorded")
    return data


def _place(key: str) -> str:
    return f"cache:{key}"
