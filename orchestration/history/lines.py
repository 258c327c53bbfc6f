"""Histories as JSON lines, read in constant memory: what is no entry is told by the number of its line."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from ...errors import CeleriacError, StorageError
from ...storage import serial
from ...storage.histories.protocol import HistoryError

#: Lines that an error names.
_NAMED: Final = 10
#: Bad lines after which it is no longer worth reading on.
_MOST_BAD: Final = 100_000
#: Records of an exported session that are no entries of its history.
_OTHER_RECORDS: Final = ("session", "step", "result", "finding", "conflict", "partial", "event")
#: What an exported session is described by, and another one can be.
_DESCRIBES: Final = (
    *("query", "user", "title", "type", "agent", "priority", "tags", "notes"),
    *("preferences", "metadata", "permissions", "file_paths"),
)
_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no entry, counted from 1, and why not."""

    line: int
    reason: str


class BadLines(HistoryError):
    """Lines of a file are no entries; nothing was written. `lines` are all of them."""

    def __init__(self, file: Path, lines: list[BadLine]) -> None:
        named = "; ".join(f"line {one.line}: {one.reason}" for one in lines[:_NAMED])
        more = f"; and {len(lines) - _NAMED:,} more" if len(lines) > _NAMED else ""
        what = "1 line that is no entry" if len(lines) == 1 else f"{len(lines):,} lines that are no entries"
        super().__init__(f"{file.name} has {what}, nothing was written: {named}{more}")
        self.lines = lines


@dataclass(frozen=True)
class Lines:
    """The lines of a file; those of over `longest` bytes are told, not read."""

    file: Path
    longest: int

    def __iter__(self) -> Iterator[tuple[int, bytes | None]]:
        """(number, line) of those that are not empty; None for one that is too long. Raises HistoryError."""
        try:
            with self.file.open("rb") as stream:
                yield from enumerate(self._read(stream), 1)
        except OSError as fault:
            raise HistoryError(f"{self.file} cannot be read: {fault.strerror or fault}") from fault
        except ValueError as fault:  # no file can have that name
            raise HistoryError(f"{str(self.file)!r:.100} cannot be read: {fault}") from fault

    def _read(self, stream: BinaryIO) -> Iterator[bytes | None]:
        first = True
        while line := stream.readline(self.longest + 1):
            if len(line) > self.longest and not line.endswith(b"\n"):
                while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
                    pass
                yield None
            else:
                yield line.removeprefix(_BOM) if first else line
            first = False


def _parsed(lines: Lines) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number, entry or what is wrong) of each line that is not empty; other records of a session are passed over."""
    of_session = False
    for number, line in lines:
        if line is None:
            yield number, f"over {lines.longest:,} bytes"
            continue
        if not line.strip():
            continue
        try:
            found = serial.decode(line)
        except StorageError as fault:
            yield number, f"no JSON ({fault.__cause__ or fault})"
            continue
        if not isinstance(found, dict):
            yield number, f"no JSON object but {type(found).__name__}"
            continue
        record = found.get("record")
        of_session = of_session or (number == 1 and record == "session" and "plan_document" in found)
        if not of_session:
            yield number, found
        elif record == "entry":
            yield number, {name: value for name, value in found.items() if name != "record"}
        elif record not in _OTHER_RECORDS:
            yield number, f"no record of a session ({record!r:.40})"


def described(file: Path, longest: int) -> dict[str, Any]:
    """What describes the session that an exported file is of, as `Sessions.create` takes it; of other files nothing."""
    for _, line in Lines(file, longest):
        with contextlib.suppress(StorageError):
            found = serial.decode(line) if line is not None else None
            if isinstance(found, dict) and found.get("record") == "session" and "plan_document" in found:
                return {name: found[name] for name in _DESCRIBES if name in found}
        break
    return {}


def check(lines: Lines, taken: Callable[[Mapping[str, Any]], Any], skip_bad: bool) -> tuple[int, list[BadLine]]:
    """Go through all lines; gives how many `taken` takes, and those that it does not. Raises BadLines if there are any,
    unless they are to be skipped; and HistoryError for a file that seems to be none of entries.
    """
    good, bad = 0, list[BadLine]()
    for number, found in _parsed(lines):
        reason = found if isinstance(found, str) else _refused(found, taken)
        good += reason is None
        if reason is not None:
            bad.append(BadLine(number, reason))
            if len(bad) > _MOST_BAD:
                raise HistoryError(
                    f"{lines.file.name} has over {_MOST_BAD:,} lines that are no entries; nothing was written"
                )
    if bad and not skip_bad:
        raise BadLines(lines.file, bad)
    return good, bad


def _refused(entry: dict[str, Any], taken: Callable[[Mapping[str, Any]], Any]) -> str | None:
    try:
        taken(entry)
    except CeleriacError as fault:
        return str(fault)
    return None


def entries_of(lines: Lines, count: int, without: set[int]) -> Iterator[dict[str, Any]]:
    """The entries of the lines, so many, but for those numbers. Raises HistoryError if the file has changed since
    `check`, as a pipe has, of which nothing is left.
    """
    given = 0
    for number, found in _parsed(lines):
        if number in without:
            continue
        if isinstance(found, str):
            raise HistoryError(f"{lines.file.name} has changed while it was read: line {number} is now {found}")
        given += 1
        yield found
    if given != count:
        raise HistoryError(
            f"{lines.file.name} had {count:,} entries, and {given:,} when it was read again, so nothing was written: "
            "a file is read twice, and must not be a pipe"
        )
