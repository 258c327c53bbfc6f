"""What a folder may hold: the research job through the whole machine reads what it can and says what it could not."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from celeriac import Celeriac
from celeriac.orchestration.research import files
from celeriac.orchestration.research.files import walk
from celeriac.orchestration.session import Session

QUESTION = "What is the visibility timeout?"
ANSWER = "The visibility timeout is one hour for every queue.\n"


@pytest.fixture(scope="module")
def celeriac(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celeriac]:
    instance = Celeriac(data_dir=tmp_path_factory.mktemp("data"))
    yield instance
    instance.close()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "guide.md").write_text(ANSWER)
    return folder


def asked(celeriac: Celeriac, *folders: Path, kind: str = "documents") -> tuple[Session, str]:
    """The session when it has ended, and its report as Markdown ("" where there is none)."""
    out = folders[0].parent / "out"
    session = celeriac.research(QUESTION, list(folders), out=out, kind=kind)
    session.wait(60)
    report = out / "report.md"
    return session, report.read_text() if report.exists() else ""


def test_what_cannot_be_read_is_named_with_its_reason(celeriac: Celeriac, docs: Path) -> None:
    (docs / "empty.txt").touch()
    (docs / "blank.txt").write_text(" \n\n")
    (docs / "noise.txt").write_bytes(bytes(range(256)) * 40)
    (docs / "picture.png").write_bytes(b"\x89PNG")
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7\nvisibility timeout, but no such thing")
    (docs / "broken.txt.gz").write_bytes(b"\x1f\x8b\x08 not really")
    with open(docs / "huge.txt", "wb") as huge:
        huge.truncate(60 * 1024 * 1024)  # sparse: takes no room
    os.mkfifo(docs / "pipe.txt")
    (docs / "nowhere.txt").symlink_to(docs / "missing.txt")
    (docs / "loop").symlink_to(docs)
    session, report = asked(celeriac, docs)
    assert session.error is None and "one hour" in report
    for name, reason in {
        "empty.txt": "empty",
        "blank.txt": "only blanks",
        "noise.txt": "binary",
        "picture.png": "binary",
        "broken.pdf": "PDF that cannot be read",
        "broken.txt.gz": "damaged gzip",
        "huge.txt": "too large",
        "pipe.txt": "not a regular file",
        "nowhere.txt": "a link to nowhere",
        "loop": "leads back to a folder above it",
    }.items():
        (line,) = [line for line in report.splitlines() if f"{name}`" in line and line.startswith("|")]
        assert reason in line
    assert "Traceback" not in report


def test_text_in_any_encoding_is_read(celeriac: Celeriac, docs: Path) -> None:
    (docs / "guide.md").write_bytes("Größe: the visibility timeout is two hours für alle.\n".encode("latin-1"))
    (docs / "wide.txt").write_bytes("The visibility timeout is three hours here.\n".encode("utf-16"))
    (docs / "cut.txt").write_bytes(b"The visibility timeout is four hours at most.\n\n\xff\xfe\xc3(")
    _, report = asked(celeriac, docs)
    assert all(number in report for number in ("two hours für", "three hours", "four hours"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything; see the next test")
def test_a_file_without_permission_is_skipped(celeriac: Celeriac, docs: Path) -> None:
    (docs / "secret.md").write_text(ANSWER)
    (docs / "secret.md").chmod(0)
    _, report = asked(celeriac, docs)
    assert "permission denied" in report


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_without_permission_files_and_folders_are_skipped(docs: Path) -> None:
    (docs / "secret.md").write_text(ANSWER)
    (docs / "secret.md").chmod(0)
    (docs / "vault").mkdir(mode=0)
    docs.chmod(0o755)
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:  # the permissions of a process cannot be given up and taken back
        try:
            os.chdir(docs)
            os.setgid(65534)
            os.setuid(65534)
            found = walk(["."])
            reasons = dict(found.skipped)
            try:
                files.read_bytes("./secret.md")
            except files.Unreadable as error:
                reasons["./secret.md"] = str(error)
            os.write(writing, repr(sorted(reasons.items())).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading, "rb") as stream:
        assert stream.read().decode() == repr([("./secret.md", "permission denied"), ("./vault", "permission denied")])


def test_a_file_that_vanishes_while_reading_is_skipped(
    celeriac: Celeriac, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (docs / "gone.md").write_text(ANSWER)
    original = files.read_bytes

    def vanishing(path: str) -> bytes:
        (docs / "gone.md").unlink(missing_ok=True)
        return original(path)

    monkeypatch.setattr(files, "read_bytes", vanishing)
    session, report = asked(celeriac, docs)
    assert session.error is None
    assert any("gone.md" in line and "vanished" in line for line in report.splitlines())


def test_a_folder_or_file_that_is_missing_is_one_clear_error(celeriac: Celeriac, tmp_path: Path) -> None:
    session, report = asked(celeriac, tmp_path / "missing")
    assert report == ""
    assert session.error is not None and "does not exist" in session.error and "\n" not in session.error


def test_an_empty_folder_is_one_clear_error(celeriac: Celeriac, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    session, _ = asked(celeriac, tmp_path / "docs")
    assert session.error is not None and "nothing to read" in session.error and "Traceback" not in session.error


def test_a_file_may_be_named_in_the_place_of_a_folder(celeriac: Celeriac, docs: Path) -> None:
    session, report = asked(celeriac, docs / "guide.md")
    assert session.error is None and "one hour" in report


def test_packages_cannot_be_looked_for_in_a_file(celeriac: Celeriac, docs: Path) -> None:
    session, _ = asked(celeriac, docs / "guide.md", kind="licences")
    assert session.error is not None and "guide.md" in session.error and "\n" not in session.error


def test_a_report_that_cannot_be_written_is_one_clear_error(celeriac: Celeriac, docs: Path) -> None:
    session = celeriac.research(QUESTION, [docs], out=docs / "guide.md" / "out")
    session.wait(60)
    assert session.error is not None and "cannot write" in session.error


def test_without_typst_the_report_says_that_the_pdf_is_left_out(
    celeriac: Celeriac, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "typst", None)
    session, report = asked(celeriac, docs)
    assert session.error is None and sorted(session.result) == ["html", "markdown"]
    (line,) = [line for line in report.splitlines() if "report.pdf" in line]
    assert "not made" in line and "typst, which is not installed" in line


def package(folder: Path, name: str, metadata: str, licence: str) -> None:
    papers = folder / f"{name}-1.0.dist-info"
    papers.mkdir(parents=True)
    (papers / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}\n\n")
    (papers / "LICENSE").write_text(licence)


def told(session: Session) -> list[tuple[str, str, list[str]]]:
    """The session's conflicts as (entity, severity, values)."""
    return [(c["entity"], c["severity"], [f["value"] for f in c["findings"]]) for c in session.conflicts()]


def test_the_sessions_conflicts_are_those_of_the_licence_report(celeriac: Celeriac, tmp_path: Path) -> None:
    mit = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy of this software"
    package(tmp_path / "site-packages", "bad", "License: GPL-3.0-only", mit)
    package(tmp_path / "site-packages", "good", "License-Expression: MIT", mit)
    session, report = asked(celeriac, tmp_path / "site-packages", kind="licences")
    assert told(session) == [("bad 1.0", "high", ["GPL-3.0-only", "MIT"])]
    assert "### bad 1.0: licence (high)" in report
    raised = [event.data for event in session.stream(follow=False) if event.type == "conflict.raised"]
    assert [(one["entity"], one["severity"]) for one in raised] == [("bad 1.0", "high")]


def test_the_sessions_conflicts_are_those_of_the_answer(celeriac: Celeriac, docs: Path) -> None:
    (docs / "a.md").write_text("The default of visibility timeout is 1 hour. The default of pool size is 5.\n")
    (docs / "b.md").write_text("The default of visibility timeout is 3600 seconds. The default of pool size is 9.\n")
    out = docs.parent / "out"
    session = celeriac.research("What are the default visibility timeout and pool size?", [docs], out=out)
    session.wait(60)
    assert told(session) == [("pool size", "high", ["5", "9"])]
    assert (out / "report.md").read_text().count("\n### ") == 1
