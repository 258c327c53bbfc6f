"""Hostile files in the places of archives and of backups that come in (T29): what they are, and looking at a folder."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from celeriac.storage import tar
from celeriac.storage.backup import wrapping
from celeriac.storage.backup.wrapping import zstd

GIB = 1 << 30


def walked(folder: Path) -> dict[str, str]:
    """Every file, link and folder below one, with what changes when it is written to; but for a database's own."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            found[str(path)] = f"link to {os.readlink(path)}"
        elif path.is_file():
            about = path.stat()
            found[str(path)] = f"{about.st_ino} {about.st_size} {about.st_mtime_ns}"
        else:
            found[str(path)] = "folder"
    return {name: one for name, one in found.items() if ".db" not in name}


def peak(work: Callable[[], object]) -> int:
    """Bytes by which the memory of a process of its own grows at its highest while it does some work; it must not
    raise.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, b"%d " % _highest())
            work()
            os.write(writer, b"%d" % _highest())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as stream:
        before, after = map(int, stream.read().split())
    assert os.waitpid(child, 0)[1] == 0
    return after - before


def _highest() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def members(first: str, content: bytes, good: str) -> Iterator[tuple[str, bytes]]:
    """(what it is, the tar): files that begin as a sound one, with the member `first`, and then are hostile.

    `good` is the name of a member that may be in such a file.
    """

    def made(fill: Callable[[tarfile.TarFile], None], form: int = tarfile.PAX_FORMAT) -> bytes:
        out = io.BytesIO()
        tar.write(out, first, len(content), [content])
        rest = io.BytesIO()
        with tarfile.open(fileobj=rest, mode="w", format=form) as file:
            fill(file)
        return out.getvalue() + rest.getvalue()

    def plain(*names: str, size: int = 4) -> Callable[[tarfile.TarFile], None]:
        def fill(file: tarfile.TarFile) -> None:
            for name in names:
                about = tarfile.TarInfo(name)
                about.size, about.mode = size, 0o600
                file.addfile(about, io.BytesIO(b"evil" * (size // 4)))

        return fill

    def special(kind: bytes, name: str = good, target: str = "") -> Callable[[tarfile.TarFile], None]:
        def fill(file: tarfile.TarFile) -> None:
            about = tarfile.TarInfo(name)
            about.type, about.linkname, about.mode = kind, target, 0o600
            file.addfile(about)
            plain(f"{name}/evil")(file)

        return fill

    for name in ("../evil", "../../evil", "/tmp/evil", "objects/../../evil", "a\\..\\evil", ".lock", "evil"):
        yield f"a file {name}", made(plain(name))
    yield "a folder", made(special(tarfile.DIRTYPE))
    yield "a link that is then written through", made(special(tarfile.SYMTYPE, target=".."))
    yield "a hard link", made(special(tarfile.LNKTYPE, target=first))
    for kind, what in ((tarfile.CHRTYPE, "device"), (tarfile.BLKTYPE, "disk"), (tarfile.FIFOTYPE, "pipe")):
        yield f"a {what}", made(special(kind))
    yield "a sparse file", made(special(b"S"))
    yield "two files of one name", made(plain(good, good))
    yield "two names that differ in case", made(plain(good, good.upper()))
    yield "two names that differ in their Unicode form", made(plain("caf\u00e9", "cafe\u0301"))
    yield "a long name", made(plain("x" * 300))
    yield "a long name of GNU", made(plain("x" * 300), tarfile.GNU_FORMAT)
    yield "a header with attributes", made(lambda file: file.addfile(_with_pax(good)))
    yield "the first file again", made(plain(first))
    yield "10,000 files", made(plain(*(f"{number:064x}" for number in range(10_000))))
    yield "10,000 files in folders", made(plain(*(f"objects/{n:064x}"[:10] + f"/{n:064x}" for n in range(10_000))))
    yield "a size beyond the end", made(plain(good))[: -12 * tar.BLOCK] + tar.header(good, GIB)
    negative = bytearray(tar.header(good, 4))
    negative[124:136] = b"\xff" * 12
    yield "a size below zero", made(lambda file: None)[: -20 * tar.BLOCK] + bytes(negative) + bytes(1536)
    yield "something behind the end", made(plain(good)) + b"evil"
    yield "compressed as a whole", zstd.compress(made(plain(good)))


def _with_pax(name: str) -> tarfile.TarInfo:
    about = tarfile.TarInfo(name)
    about.pax_headers = {"path": "../evil", "comment": "x" * 100_000}
    return about


def bomb(place: str) -> bytes:
    """A piece that unpacks to 1 GiB of zeros, with the hash that it should have."""
    packer = zstd.ZstdCompressor()
    zeros = bytes(1 << 24)
    body = b"".join([*(packer.compress(zeros) for _ in range(GIB // len(zeros))), packer.flush()])
    packed = wrapping._HEADER.pack(wrapping.COMPRESSIONS.index("zstd"), GIB) + body
    return wrapping._MARK + wrapping._digest(place, packed) + packed


def blob_bomb() -> tuple[str, bytes]:
    """Name and file of a blob of 1 GiB of zeros."""
    packer, found = zstd.ZstdCompressor(), hashlib.sha256()
    zeros = bytes(1 << 24)
    body = []
    for _ in range(GIB // len(zeros)):
        body.append(packer.compress(zeros))
        found.update(zeros)
    return found.hexdigest(), b"CLB1" + GIB.to_bytes(8, "big") + b"".join(body) + packer.flush()
