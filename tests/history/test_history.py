"""What is said in a session, as its users read and write it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from celeriac import Celeriac
from celeriac.errors import NotSerializable, SessionError, SessionNotFound, TooLarge
from celeriac.storage.histories import rows
from celeriac.storage.histories.protocol import HistoryError


def test_entries_come_back_as_they_were_said_in_order(anywhere: Celeriac) -> None:
    session = anywhere.sessions.create("hi")
    whole = {
        "user_request": {"text": "Wer?", "tags": [1, None]},
        "agent": "locator",
        "response": {"found": [1.5]},
        "escalations": ["lea"],
        "duration": 0.25,
        "metadata": {"ttl": 60, "important": True, "category": "facts", "own": "x"},
        "timestamp": "2026-01-02T03:04:05.678901+00:00",
    }
    assert session.add(**whole) == 1
    assert session.history.add("assistant", None, tool_calls=[{"id": "c1", "name": "look", "args": {}}]) == 2
    assert session.history.add("tool", "42", tool_call_id="c1") == 3
    first, second, third = session.history(last=50)
    assert first == {"number": 1, **whole}
    assert second["number"] == 2 and second["content"] is None and second["tool_calls"][0]["id"] == "c1"
    assert third["role"] == "tool" and abs(datetime.fromisoformat(third["timestamp"]) - datetime.now(UTC)) < timedelta(
        seconds=60
    )


def test_last_range_all_count_and_clear(anywhere: Celeriac) -> None:
    history = anywhere.sessions.create().history
    assert history.extend({"role": "user", "content": str(n)} for n in range(1, 1301)) == 1300

    def said(entries: Any) -> list[int]:
        return [int(entry["content"]) for entry in entries]

    assert said(history.last(3)) == [1298, 1299, 1300] and said(history.last(0)) == []
    assert said(history.range(5, 7)) == [5, 6, 7] and said(history.range(1299)) == [1299, 1300]
    assert said(history.all()) == said(history()) == said(history) == list(range(1, 1301))
    assert said(history.all(after=1298)) == [1299, 1300]
    assert history.count() == len(history) == 1300
    assert history.clear() == 1300 and history.count() == 0 and history.last(5) == []
    assert history.add("user", "again") == 1


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({}, "needs one of role, user_request, response; it has: none"),
        ({"content": "x"}, "it has: content"),
        ({"role": 3}, "role of an entry is 3; allowed: text"),
        ({"role": ""}, "role of an entry is ''"),
        ({"role": "user", "duration": -1}, "duration of an entry is -1; allowed: seconds"),
        ({"role": "user", "metadata": {"ttl": 0}}, r"metadata.ttl of an entry is 0; allowed: seconds, over 0"),
        ({"role": "user", "metadata": {"important": 1}}, "metadata.important"),
        ({"role": "user", "tool_calls": ["x"]}, "a list of objects"),
        ({"role": "user", "timestamp": "yesterday"}, "timestamp of an entry is 'yesterday'"),
        ({"role": "user", "timestamp": 1e15}, "in the years 1900 to 2199"),
        ([1], "an entry is a JSON object; found list"),
    ],
)
def test_what_is_no_entry_is_refused_and_nothing_is_written(celeriac: Celeriac, entry: Any, says: str) -> None:
    history = celeriac.sessions.create().history
    with pytest.raises(HistoryError, match=says):
        history.extend([{"role": "user"}, entry])
    assert history.count() == 0


def test_what_is_no_json_or_too_large_is_refused(open_one: Callable[..., Celeriac]) -> None:
    history = open_one(max_result_bytes=1000).sessions.create().history
    with pytest.raises(NotSerializable, match="entry.content"):
        history.add("user", object())
    with pytest.raises(TooLarge, match="limit is 1,000 bytes"):
        history.add("user", "x" * 1000)
    assert history.count() == 0


def test_a_session_that_is_archived_or_not_there_takes_no_entries(anywhere: Celeriac) -> None:
    session = anywhere.sessions.create()
    session.history.add("user", "hi")
    session.cancel()
    assert session.history.add("user", "still") == 2
    session.archive()
    for change in (lambda: session.history.add("user", "x"), session.history.clear):
        with pytest.raises(SessionError, match="archived"):
            change()
    assert session.history.count() == 0 and anywhere.archives.show(session.id)["entries"] == 2
    anywhere.sessions.delete(session.id)
    assert session.history.count() == 0
    with pytest.raises(SessionNotFound):
        session.history.add("user", "x")


def test_deleting_a_session_deletes_its_entries_and_their_blobs(
    open_one: Callable[..., Celeriac], database_url: str, tmp_path: Path
) -> None:
    celeriac = open_one(database_url=database_url, inline_result_bytes=1000)
    one, other = celeriac.sessions.create(), celeriac.sessions.create()
    shared, own = {"role": "user", "content": "s" * 5000}, {"role": "user", "content": "o" * 5000}
    one.history.extend([shared, own])
    other.history.append(shared)
    assert one.history.last(2)[1]["content"] == "o" * 5000
    blobs = celeriac.engine.blobs
    assert len(list(blobs.hashes())) == 2
    one.cancel()
    celeriac.sessions.delete(one.id)
    assert len(list(blobs.hashes())) == 1 and other.history.last(1)[0]["content"] == "s" * 5000
    other.history.clear()
    assert list(blobs.hashes()) == []
    assert list(celeriac.histories.list()) == []


def test_processes_that_append_at_once_lose_nothing(anywhere: Celeriac, tmp_path: Path) -> None:
    session = anywhere.sessions.create()
    code = (
        "import sys\nfrom celeriac import Celeriac\n"
        "h = Celeriac(embed=False).sessions.get(sys.argv[1]).history\n"
        "for n in range(60): h.add('user', [sys.argv[2], n])\n"
    )
    url = anywhere.settings.database
    environ = {**os.environ, "CELERIAC_DATA_DIR": str(anywhere.settings.data_dir), "CELERIAC_DATABASE_URL": url}
    started = [subprocess.Popen([sys.executable, "-c", code, session.id, name], env=environ) for name in "ab"]
    assert [process.wait(60) for process in started] == [0, 0]
    entries = session.history()
    assert [entry["number"] for entry in entries] == list(range(1, 121))
    for name in "ab":
        assert [entry["content"][1] for entry in entries if entry["content"][0] == name] == list(range(60))


def test_appending_does_not_wait_for_a_turn_of_the_session(
    open_one: Callable[..., Celeriac], postgres_server: Any
) -> None:
    celeriac = open_one(database_url=postgres_server.create_database("history_beside"))
    session = celeriac.sessions.create()
    session.history.add("user", "first")
    done = threading.Event()

    def turn(_: Any) -> None:
        thread = threading.Thread(target=lambda: (session.history.add("user", "beside"), done.set()))
        thread.start()
        assert done.wait(10), "the append waits for the session's row"

    celeriac.engine.in_turn(session.id, turn)
    assert session.history.count() == 2
    celeriac.close()
    postgres_server.drop_database("history_beside")


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_append_whose_commit_broke_is_in_once(
    anywhere: Celeriac, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    history = anywhere.sessions.create().history
    history.add("user", "first")
    broken = []

    def commit(cursor: Any) -> None:
        inserted = "history" in traced
        if not inserted or broken or when == "after":
            cursor.execute("COMMIT")
        if inserted and not broken:
            broken.append(when)
            raise ConnectionError("gone")

    traced: list[str] = []
    append = rows.append
    monkeypatch.setattr(rows, "append", lambda *given: (traced.append("history"), append(*given))[1])
    monkeypatch.setattr(anywhere.engine.database, "_commit", commit)
    history.add("user", "second")
    assert broken == [when]
    assert [entry["content"] for entry in history()] == ["first", "second"]


@pytest.mark.parametrize("mark", [None, 1])
def test_the_end_of_a_history_is_read_without_the_rest_of_it(anywhere: Celeriac, mark: int | None) -> None:
    entries = [{"role": "user", "content": n, "metadata": {"important": n % 100 == 0}} for n in range(3000)]
    one, other = (anywhere.sessions.create().history for _ in range(2))
    one.extend(entries)
    other.extend(entries)
    is_sqlite = anywhere.engine.database.is_sqlite
    told: list[str] = []

    def explain(tx: Any) -> None:
        plain = tx.rows

        def rows_of(query: Any, /, **values: Any) -> Any:
            text, carried = query.text(tx._dialect)
            prefix = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN (ANALYZE, COSTS OFF) "
            tx._cursor.execute(prefix + text, {**carried, **values})
            told.extend(str(row[-1]) for row in tx._cursor.fetchall())
            return plain(query, **values)

        rows.load(cast(Any, SimpleNamespace(rows=rows_of)), one._id, 1, None, 20, True, mark)

    anywhere.engine.database.read(explain)
    plan = "\n".join(told)
    assert "SCAN" not in plan and "TEMP B-TREE" not in plan and "Sort" not in plan and "Seq" not in plan, plan
    assert "Removed by Filter" not in plan and ("history_marked" in plan) == (mark is not None), plan


def test_who_talks_is_not_inactive(celeriac: Celeriac) -> None:
    quiet, talks = celeriac.sessions.create(), celeriac.sessions.create()
    database = celeriac.engine.database
    from sqlalchemy import text

    database.write(lambda tx: tx.run(text("UPDATE sessions SET updated_at = updated_at - 1000")))
    talks.history.add("user", "hello")
    assert celeriac.sessions.cleanup_inactive(500) == [quiet.id] and talks.status == "active"


def test_the_guard_is_at_this_door_too(open_one: Callable[..., Celeriac]) -> None:
    rules = {"fields": [{"path": "password", "action": "redact"}]}
    session = open_one(guard_rules=rules).sessions.create()
    session.history.add("user", {"password": "hunter2", "text": "x"})
    assert "hunter2" not in str(session.history()) and session.history.last(1)[0]["content"]["text"] == "x"


def test_a_window_keeps_the_prompt_the_newest_and_what_is_important(celeriac: Celeriac) -> None:
    history = celeriac.sessions.create().history
    history.add("system", "old prompt")
    history.add("system", "Be brief.")
    history.add("user", "My name is Ana.", metadata={"important": True})
    history.extend({"role": "user", "content": f"question {n} " + "x" * 80} for n in range(200))
    shown = history.window(max_entries=6)
    assert [entry["number"] for entry in shown] == [2, 3, 200, 201, 202, 203]
    assert shown.counted_by == "estimate: UTF-8 bytes / 4"
    by_tokens = history.window(max_tokens=120)
    assert by_tokens.tokens <= 120 and [entry["number"] for entry in by_tokens] == [2, 3, 201, 202, 203]
    assert [entry["number"] for entry in history.window(max_tokens=1)] == [2]
    assert len(history.window()) == 202
    assert history.count() == 203
    with pytest.raises(HistoryError, match="max_tokens of a window is 0"):
        history.window(max_tokens=0)


def test_a_window_leaves_out_what_is_past_and_what_was_before(celeriac: Celeriac) -> None:
    history = celeriac.sessions.create().history
    moment = datetime.now(UTC)

    def ago(seconds: float) -> str:
        return (moment - timedelta(seconds=seconds)).isoformat()

    history.add("user", "old", timestamp=ago(500))
    history.add("user", "past", timestamp=ago(50), metadata={"ttl": 10})
    history.add("user", "passing", timestamp=ago(50), metadata={"ttl": 1000})
    history.add("user", "new")
    assert [entry["content"] for entry in history.window()] == ["old", "passing", "new"]
    since = moment - timedelta(seconds=100)
    assert [entry["content"] for entry in history.window(since=since)] == ["passing", "new"]
    with pytest.raises(HistoryError, match="a datetime with a time zone"):
        history.window(since=datetime(2026, 1, 1))


def test_a_result_of_a_tool_is_not_shown_without_its_call(celeriac: Celeriac) -> None:
    history = celeriac.sessions.create().history
    history.add("assistant", tool_calls=[{"id": "c1"}, {"id": "c2"}])
    history.add("tool", "1", tool_call_id="c1")
    history.add("tool", "2", tool_call_id="c2")
    history.add("assistant", "both")
    assert [entry["number"] for entry in history.window(max_entries=4)] == [1, 2, 3, 4]
    assert [entry["number"] for entry in history.window(max_entries=3)] == [4]


def test_what_was_pruned_leaves_windows_and_stays_in_the_history(celeriac: Celeriac) -> None:
    session = celeriac.sessions.create()
    history = session.history
    history.extend({"role": "user", "content": str(n), "metadata": {"important": n == 3}} for n in range(1, 11))
    assert history.prune(keep=2) == 7
    assert [entry["number"] for entry in history.window()] == [3, 9, 10]
    assert history.prune(keep=5) == 0 and history.count() == 10
    assert [event.type for event in session.stream(follow=False)].count("history.pruned") == 1
    history.clear()
    history.add("user", "again")
    assert len(history.window()) == 1


def test_tokens_are_counted_by_the_tokenizer_of_the_model_where_there_is_one(
    open_one: Callable[..., Celeriac], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Words:
        name = "words"

        def encode(self, text: str, disallowed_special: Any = None) -> list[str]:
            return text.split()

    from celeriac.orchestration.history.tokens import tokens_of

    tokens_of.cache_clear()
    monkeypatch.setitem(sys.modules, "tiktoken", SimpleNamespace(encoding_for_model=lambda name: Words()))
    history = open_one(model="openai:gpt-5").sessions.create().history
    history.add("user", "three words here")
    shown = history.window()
    assert (shown.tokens, shown.counted_by) == (3 + 4, "tiktoken words")
    tokens_of.cache_clear()


def test_a_summary_without_a_model_is_made_of_sentences_that_were_said(celeriac: Celeriac) -> None:
    history = celeriac.sessions.create().history
    assert history.summarize().text == ""
    said = [
        ("user", "Who supplies the cocoa for the Hamburg plant?"),
        ("assistant", "The cocoa for the Hamburg plant comes from Acme Trading. Nice weather today."),
        ("user", "Ok."),
        ("assistant", "Acme Trading delivers cocoa every Tuesday. The contract ends in March."),
    ]
    for role, content in said:
        history.add(role, content)
    summary = history.summarize(last_n=4)
    assert (summary.by, summary.first, summary.last) == ("sentences", 1, 4)
    whole = " ".join(content for _, content in said)
    assert all(line.partition(": ")[2] in whole for line in summary.text.splitlines())
    assert "assistant: Acme Trading delivers cocoa every Tuesday." in summary.text
    assert history.count() == 4


def test_a_summary_by_a_model_names_it(open_one: Callable[..., Celeriac]) -> None:
    history = open_one(model="test").sessions.create().history
    history.add("user", "Hello there, how are you?")
    summary = history.summarize()
    assert summary.by == "test" and summary.text


def test_a_summary_passes_over_what_has_no_words(celeriac: Celeriac) -> None:
    history = celeriac.sessions.create().history
    history.add("assistant", "")
    history.append({"user_request": "", "response": None})
    history.add("user", "The cocoa comes from Acme Trading.")
    assert history.summarize().text == "user: The cocoa comes from Acme Trading."


def test_what_is_no_number_of_entries_is_one_clear_error(celeriac: Celeriac) -> None:
    history = celeriac.sessions.create().history
    history.add("user", "hi")
    odds: list[Any] = [-1, 1.5, "3", "", True, [], {}, b"x", object()]
    for odd in odds:
        for ask in (
            lambda odd: history.last(odd),
            lambda odd: history(odd),
            lambda odd: history.range(odd),
            lambda odd: history.range(1, odd),
            lambda odd: list(history.all(odd)),
            lambda odd: history.window(max_entries=odd),
            lambda odd: history.window(max_tokens=odd),
            lambda odd: history.window(until=odd),
            lambda odd: history.window(since=odd),
            lambda odd: history.summarize(odd),
            lambda odd: history.prune(odd),
            lambda odd: history.compact(odd, dry_run=True),
        ):
            with pytest.raises(HistoryError, match="allowed: "):
                ask(odd)


def test_more_entries_than_there_are_is_all_of_them(celeriac: Celeriac) -> None:
    history = celeriac.sessions.create().history
    history.add("user", "hi")
    most = 10**30
    assert [len(history.last(most)), len(history.range(1, most)), len(history.window(most, most))] == [1, 1, 1]
    assert history.summarize(most).last == 1 and history.compact(most, dry_run=True).entries == 0
    for odd in (None, 3, object()):
        with pytest.raises(HistoryError, match="allowed: a list of objects"):
            history.extend(odd)
        with pytest.raises(HistoryError, match="allowed: a path"):
            history.import_lines(odd)
        with pytest.raises(HistoryError, match="allowed: an open text file"):
            history.export_lines(odd)
    with pytest.raises(HistoryError, match="cannot be read: embedded null"):
        history.import_lines("\0")
