"""Compaction: older messages become a summary; what they were can be read, put back, backed up and deleted."""

from __future__ import annotations

import io
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from driver import Driver

from celeriac import Celeriac
from celeriac.errors import SessionError
from celeriac.orchestration import rotating
from celeriac.orchestration.history import compaction
from celeriac.orchestration.session import Session
from celeriac.storage.histories.protocol import HistoryConflict, HistoryError
from celeriac.storage.keys import keyfile
from celeriac.storage.keys.keyfile import Keys, new_key
from keeping.aged import count, retention, sql

Make = Callable[..., Driver]


def talk(driver: Driver, entries: int = 30, size: int = 200) -> tuple[Session, list[dict[str, Any]]]:
    """A session in which something was said, and what."""
    session = driver.sessions.create("q")
    session.history.add("system", "Answer in one sentence.")
    session.history.add("user", "Remember the blue door.", metadata={"important": True})
    for n in range(entries):
        session.history.add("user" if n % 2 else "assistant", f"The crate {n} holds cocoa. " + "w" * size)
    return session, session.history()


def test_older_messages_become_one_summary_and_can_be_read_and_put_back(make: Make) -> None:
    driver = make(inline_result_bytes=1000)
    session, said = talk(driver)
    session.history.add("user", "large " + "L" * 3000)
    session.history.add("assistant", "The last word.")
    said = session.history()
    planned = session.compact(keep_last=5, dry_run=True)
    assert session.history() == said and planned.entries == len(said) - 5 - 2
    found = session.compact(keep_last=5)
    assert (found.entries, found.tokens_before, found.bytes_before, found.counted_by) == (
        planned.entries, planned.tokens_before, planned.bytes_before, "estimate: UTF-8 bytes / 4",
    )  # fmt: skip
    assert 0 < found.tokens_after < found.tokens_before / 4 and found.cold_bytes < found.bytes_before / 4
    left = session.history()
    assert [entry["number"] for entry in left] == [1, 2, len(said) - 5, *range(len(said) - 4, len(said) + 1)]
    assert left[2]["metadata"]["summary"]["by"] == found.by == "sentences" and "cocoa" in left[2]["content"]
    assert session.history.count() == len(left) and len(driver.engine.conversations.load(session.id)) == len(left)
    assert list(session.cold()) == [entry for entry in said if 2 < entry["number"] <= len(said) - 5]
    assert session.history(cold=True) == said and session.history(last=7, cold=True) == said[-7:]
    stream = io.StringIO()
    assert session.history.export_lines(stream) == len(said)
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == said
    assert session.history.window(max_entries=4)[-1]["content"] == "The last word."
    number = session.history.add("user", "And on.")
    assert number == len(said) + 1
    assert session.uncompact() == found.entries
    assert session.history() == [*said, session.history.last(1)[0]] and session.history.count() == len(said) + 1
    assert list(session.cold()) == [] and session.uncompact() == 0


def test_a_compaction_of_many_is_done_in_passes_and_is_undone_as_a_whole(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_PASS", 10)
    driver = make()
    session, said = talk(driver, 35)
    planned = session.compact(keep_last=3, dry_run=True)
    found = session.compact(keep_last=3)
    assert (planned.entries, planned.bytes_before) == (found.entries, found.bytes_before) == (32, planned.bytes_before)
    assert len(found.summaries) == 4 and len(session.history()) == 2 + 1 + 3
    assert session.history(cold=True) == said
    assert session.compact(keep_last=3).entries == 0
    for n in range(4):
        session.history.add("user", f"more {n}")
    said = [*said, *session.history.last(4)]
    session.compact(keep_last=1)
    assert session.history(cold=True) == said
    session.uncompact()
    assert session.history() == said


def test_a_result_of_a_tool_stays_with_its_call(make: Make) -> None:
    driver = make()
    session, _ = talk(driver, 6)
    call = session.history.add("assistant", None, tool_calls=[{"id": "c", "name": "n"}])
    session.history.add("tool", {"found": 1}, tool_call_id="c")
    session.history.add("tool", {"found": 2}, tool_call_id="c")
    session.compact(keep_last=1)
    assert [entry["number"] for entry in session.history.last(3)] == [call, call + 1, call + 2]


def test_what_is_said_meanwhile_is_kept_and_what_was_taken_meanwhile_is_a_conflict(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make()
    session, said = talk(driver, 10)
    summarise = compaction.summarise

    def meanwhile(*args: Any) -> Any:
        session.history.add("user", "meanwhile")
        return summarise(*args)

    monkeypatch.setattr(compaction, "summarise", meanwhile)
    session.compact(keep_last=2)
    assert session.history.last(1)[0]["content"] == "meanwhile"
    session.uncompact()

    def undone(*args: Any) -> Any:
        monkeypatch.setattr(compaction, "summarise", summarise)
        session.compact(keep_last=5)
        return summarise(*args)

    monkeypatch.setattr(compaction, "summarise", undone)
    with pytest.raises(HistoryConflict, match="changed meanwhile"):
        session.compact(keep_last=2)
    session.uncompact()
    assert session.history()[:-1] == said


def test_archived_sessions_and_other_places_are_refused(make: Make, tmp_path: Path) -> None:
    driver = make()
    session, _ = talk(driver, 6)
    session.complete()
    session.archive()
    with pytest.raises(SessionError, match="archived"):
        session.compact(keep_last=1)
    other = make(history_url=f"file://{tmp_path}/talks")
    session, _ = talk(other, 3)
    with pytest.raises(HistoryError, match="outside of the database"):
        session.compact(keep_last=1)
    other.engine.conversations.delete(session.id)


def test_a_compacted_history_is_cleared_and_deleted_with_all_of_it(make: Make) -> None:
    driver = make(inline_result_bytes=300)
    for end in ("clear", "delete"):
        session, _ = talk(driver, 8, size=500)
        session.compact(keep_last=2)
        assert count(driver, "cold_history") > 0
        if end == "clear":
            session.history.clear()
            assert session.history.count() == 0 and session.history.add("user", "anew") == 1
        session.cancel()
        driver.sessions.delete(session.id)
        for table in ("cold_history", "history_gaps", "history", "blobs"):
            assert count(driver, table) == 0, (end, table)


def test_retention_deletes_cold_messages_and_what_is_gone_is_not_put_back_in_part(make: Make) -> None:
    driver = make(retention_cold_days=30.0, inline_result_bytes=300)
    session, _ = talk(driver, 8, size=500)
    session.compact(keep_last=2)
    before = session.history()
    parts = count(driver, "cold_history")
    sql(driver, "UPDATE cold_history SET at = 0 WHERE first = (SELECT min(first) FROM cold_history)")
    assert retention(driver).run().kinds["cold messages"].count == 1
    with pytest.raises(HistoryError, match="retention has deleted the others"):
        session.uncompact()
    assert session.history() == before and len(list(session.cold())) == parts - 1
    sql(driver, "UPDATE cold_history SET at = 0")
    retention(driver).run()
    assert count(driver, "cold_history") == 0 and session.history() == before


def test_cold_messages_are_in_backups(tmp_path: Path, database_url: str) -> None:
    c = Celeriac(embed=False, data_dir=tmp_path / "data", database_url=database_url, inline_result_bytes=300)
    session = c.sessions.create("q")
    for n in range(8):
        session.history.add("user", f"{n} " + "s" * 500)
    said = session.history()
    session.compact(keep_last=1)
    made = c.backups.create()
    session.cancel()
    c.sessions.delete(session.id)
    c.backups.restore(made.id)
    assert c.sessions.get(session.id).history(cold=True) == said
    c.sessions.get(session.id).uncompact()
    assert c.sessions.get(session.id).history() == said
    c.close()


def test_cold_messages_are_sealed_and_come_under_a_new_key_with_the_fields_in_them(
    tmp_path: Path, database_url: str
) -> None:
    keys = Keys("old", {"old": new_key()}, secrets.token_bytes(32))
    keyfile.write(tmp_path / "keys.toml", keys)
    rules = {"fields": [{"path": "pin", "action": "encrypt"}]}
    more: dict[str, Any] = {"data_dir": tmp_path / "data", "database_url": database_url, "guard_rules": rules}
    more["keys_file"] = str(tmp_path / "keys.toml")
    plain = Celeriac(embed=False, **more)
    session = plain.sessions.create("q")
    for n in range(8):
        session.history.add("user", {"pin": "4711", "word": f"plainword{n}"})
    session.compact(keep_last=1)
    plain.close()
    keyfile.write(tmp_path / "keys.toml", both := keys.with_key("new-one", new_key()))
    c = Celeriac(embed=False, **more, encrypt="all")
    assert c.keyring is not None
    tally = rotating.rotate(c.engine, c.keyring)
    assert tally.refused == []
    assert set(rotating.counted(c.engine).found) == {"new-one"}
    c.close()
    keyfile.write(tmp_path / "keys.toml", Keys("new-one", {"new-one": both.secrets["new-one"]}, both.hash))
    c = Celeriac(embed=False, **more, encrypt="all")
    session = c.sessions.get(session.id)
    assert [session.reveal(entry["content"])["pin"] for entry in session.cold()] == ["4711"] * 7
    rows = c.engine.database.read(lambda tx: tx.rows(_cold()))
    assert all(bytes(row[0]).startswith(b"CLS1") for row in rows)
    session.uncompact()
    assert len(session.history()) == 8
    c.close()


def _cold() -> Any:
    from sqlalchemy import text

    return text("SELECT body FROM cold_history")


def test_the_command_line_compacts_shows_and_puts_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from click.testing import CliRunner

    from celeriac.interface.main import celeriac

    monkeypatch.chdir(tmp_path)
    c = Celeriac(embed=False)
    session = c.sessions.create("q")
    for n in range(9):
        session.history.add("user", f"The parcel {n} went to Lima.")
    c.close()

    def run(*words: str) -> str:
        result = CliRunner().invoke(celeriac, list(words))
        assert result.exit_code == 0, result.output
        return result.stdout

    assert json.loads(run("history", "compact", session.id, "--keep-last", "2", "--dry-run", "--json"))["entries"] == 7
    assert "7 entries" in run("history", "compact", session.id, "--keep-last", "2")
    assert len(run("history", "cold", session.id, "--json").splitlines()) == 7
    assert "Lima" in run("history", "cold", session.id)
    assert json.loads(run("history", "uncompact", session.id, "--json"))["entries"] == 7
    assert json.loads(run("retention", "--dry-run", "--json"))["count"] == 0
    assert "0 things" in run("retention", "--all")
    assert json.loads(run("db", "vacuum", "--json"))["after"] > 0
