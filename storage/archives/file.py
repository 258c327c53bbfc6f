"""An archive, open: its manifest, and its pieces by name. Nothing is parsed before it is known to be what was written.

The row of a session knows a hash of its archive's manifest; the manifest names all pieces by hashes of what they hold.
Each piece is closed as those of backups are (`storage/backup/wrapping.py`), sealed where keys are set.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...errors import ArchiveDamaged, BackupDamaged, BackupError, SealBroken
from .. import tar
from ..backup import wrapping
from ..backup.manifest import Manifest, decode, hash_of
from ..backup.wrapping import Bytes
from ..keys.sealing import KeyRing, is_sealed, key_of
from .store import MANIFEST
from .tables import Row

#: Pieces that an archive may have, and bytes of its manifest: those of a session with 100,000 large results.
MOST_PIECES: Final = 250_000
MOST_MANIFEST: Final = 1 << 24
#: What sealing and compression add to a piece at most.
_AROUND: Final = 1 << 20
#: Bytes in which the name of the key stands.
_START: Final = 512
_PIECE: Final = re.compile(r"[0-9a-f]{64}")


class ArchiveFile:
    """An open archive. All of its names, sizes and places are checked when this is made."""

    def __init__(self, path: Path, row: Row, keyring: KeyRing | None) -> None:
        self.id = row.file
        self._keyring = keyring
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as fault:
            raise ArchiveDamaged(
                f"the archive of session {row.session_id} cannot be read: {path}: {fault.strerror}"
            ) from None
        self._file = open(handle, "rb")  # noqa: SIM115 - `close` closes it
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise ArchiveDamaged(f"the archive of session {row.session_id} is no regular file: {path}")
            with damaged(self.id):
                self.manifest, self._pieces = self._looked_through(row)
        except BaseException:
            self._file.close()
            raise

    def _looked_through(self, row: Row) -> tuple[Manifest, dict[str, tar.Member]]:
        known: list[Manifest] = []

        def most(name: str) -> int:
            if not known:
                return MOST_MANIFEST if name == MANIFEST else 0
            return wrapping.MOST_BYTES + _AROUND if _PIECE.fullmatch(name) else 0

        found = tar.members(self._file, most, MOST_PIECES)
        first = next(found, None)
        if first is None:
            raise BackupDamaged("it is empty")
        stored = self._bytes(first)
        if hash_of(stored) != row.digest:
            raise BackupDamaged("its manifest is not the one that was written")
        manifest = decode(wrapping.unwrap(stored, f"manifest {self.id}", self._keyring, MOST_MANIFEST), self.id)
        if manifest.sealed != is_sealed(stored):
            raise BackupDamaged(f"it says of itself that it is {'' if manifest.sealed else 'not '}sealed")
        known.append(manifest)
        return manifest, {member.name: member for member in found}

    def _bytes(self, member: tar.Member) -> bytes:
        # Without a place to read from that threads share.
        data = os.pread(self._file.fileno(), member.size, member.offset)
        if len(data) != member.size:
            raise BackupDamaged(f"{member.name} cannot be read whole")
        return data

    @property
    def names(self) -> set[str]:
        """The names of all pieces."""
        return set(self._pieces)

    def get(self, name: str, sealed: bool) -> bytes:
        """The content of a piece. Raises BackupDamaged, also if it is not `sealed` and should be; KeyMissing."""
        return b"".join(self.bits(name, sealed))

    def bits(self, name: str, sealed: bool) -> Iterator[Bytes]:
        """The content of a piece, bit by bit. Raises as `get`."""
        member = self._pieces.get(name)
        if member is None:
            raise BackupDamaged(f"object {name} is missing")
        stored = self._bytes(member)
        if sealed and not is_sealed(stored):
            raise BackupDamaged(f"object {name} is not sealed, but its archive is")
        yield from wrapping.unwrapped(stored, f"object {name}", self._keyring)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextlib.contextmanager
def damaged(archive: str) -> Iterator[None]:
    """Let what is wrong with a piece, or with the file, be ArchiveDamaged."""
    try:
        yield
    except (BackupDamaged, tar.TarRefused) as fault:
        raise ArchiveDamaged(f"the archive {archive} is damaged: {fault}") from fault
    except BackupError as fault:
        raise ArchiveDamaged(f"the archive {archive} cannot be read: {fault}") from fault


def sealed_with(path: Path) -> str | None:
    """The id of the key that the manifest of an archive, and so its pieces, are sealed with; None for one that is not
    sealed, or no file, or whose first bytes are none of an archive.
    """
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            start = file.read(tar.BLOCK + _START)[tar.BLOCK :]
    except OSError:
        return None
    with contextlib.suppress(SealBroken):
        return key_of(start, f"archive {path.name}")
    return None
