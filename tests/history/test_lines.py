"""Histories as JSON lines, and as they move from one place to another."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from servers import RedisServer

from celeriac import Celeriac
from celeriac.errors import SettingsError
from celeriac.interface.main import celeriac as command
from celeriac.orchestration.history.histories import move
from celeriac.orchestration.history.lines import BadLines, Lines, check, entries_of
from celeriac.storage.histories.memory import MemoryPlace
from celeriac.storage.histories.protocol import HistoryError, Item

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_entries = st.fixed_dictionaries(
    {"role": st.text(min_size=1, max_size=20), "content": _json},
    optional={
        "timestamp": st.datetimes(min_value=datetime(1901, 1, 1), max_value=datetime(2199, 1, 1)).map(
            lambda moment: moment.isoformat() + "+00:00"
        ),
        "metadata": st.fixed_dictionaries({}, optional={"important": st.booleans(), "more": _json, "ttl": st.just(5)}),
        "tool_calls": st.lists(st.dictionaries(st.text(max_size=5), _json, max_size=2), max_size=2),
        "response": _json,
        "own field": _json,
    },
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entries=st.lists(_entries, min_size=1, max_size=4))
def test_what_is_exported_and_imported_again_is_the_same(
    celeriac: Celeriac, tmp_path: Path, entries: list[dict[str, Any]]
) -> None:
    one, other = celeriac.sessions.create(), celeriac.sessions.create()
    one.history.extend(entries)
    stream = io.StringIO()
    assert one.history.export_lines(stream) == len(entries)
    file = tmp_path / "lines.jsonl"
    file.write_text(stream.getvalue(), encoding="ascii")
    assert other.history.import_lines(file) == (len(entries), [])
    assert other.history() == one.history()
    for given_, kept in zip(entries, other.history(), strict=True):
        assert {**kept, "timestamp": 0} == {**given_, "timestamp": 0, "number": kept["number"]}


def test_old_lines_load_as_they_are(celeriac: Celeriac, tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_bytes(
        b'\xef\xbb\xbf{"role": "user", "content": "Gr\xc3\xbc\xc3\x9fe", "timestamp": 1700000000.25, "metadata":{}}\r\n'
        b"\n"
        b'{"role":"assistant","content":"hi","timestamp":"2024-05-06T07:08:09","metadata":{"k":[1]}}\n'
        b'{"role":"assistant","content":"hi","timestamp":"2024-05-06T07:08:09Z"}'
    )
    history = celeriac.sessions.create().history
    assert history.import_lines(file) == (3, [])
    first, second, third = history()
    assert first["content"] == "Grüße" and first["timestamp"] == "2023-11-14T22:13:20.250000+00:00"
    assert second["timestamp"] == third["timestamp"] == "2024-05-06T07:08:09.000000+00:00"
    assert second["metadata"] == {"k": [1]}


def test_bad_lines_are_named_and_nothing_is_written_unless_they_are_skipped(
    open_one: Callable[..., Celeriac], tmp_path: Path
) -> None:
    history = open_one(max_result_bytes=2000).sessions.create().history
    file = tmp_path / "bad.jsonl"
    good = b'{"role":"user","content":"ok"}'
    lines = [
        good,
        b"{broken",
        b"[1]",
        good,
        b'{"content":1}',
        b'{"role":"u","content":"' + b"x" * 5000 + b'"}',
        b"\xff",
    ]
    file.write_bytes(b"\n".join([*lines, b'{"role":"u","content":NaN}', good]))
    with pytest.raises(BadLines) as caught:
        history.import_lines(file)
    assert [one.line for one in caught.value.lines] == [2, 3, 5, 6, 7, 8]
    assert "6 lines that are no entries, nothing was written: line 2: no JSON" in str(caught.value)
    assert history.count() == 0
    entries, bad = history.import_lines(file, skip_bad=True)
    assert entries == 3 == history.count() and [one.line for one in bad] == [2, 3, 5, 6, 7, 8]
    assert bad[3].reason == "over 2,000 bytes"
    with pytest.raises(HistoryError, match=r"none\.jsonl cannot be read"):
        history.import_lines(tmp_path / "none.jsonl")


def test_a_large_file_goes_in_and_out_in_little_memory(tmp_path: Path) -> None:
    file = tmp_path / "large.jsonl"
    line = json.dumps({"role": "user", "content": "x" * 1000}) + "\n"
    with file.open("w") as stream:
        for _ in range(50_000):
            stream.write(line)
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom celeriac import Celeriac\n"
        "c = Celeriac(embed=False)\n"
        "h = c.sessions.create().history\n"
        "h.add('user', 'warm'); h.last(1); c.histories\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert h.import_lines(Path(sys.argv[1])) == (50000, [])\n"
        "h.export_lines(open(sys.argv[2], 'w'))\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    environ = {**os.environ, "CELERIAC_DATA_DIR": str(tmp_path / "data")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(file), str(tmp_path / "out")], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 40, f"{done.stdout} MB for a file of {file.stat().st_size >> 20} MB"
    assert (tmp_path / "out").stat().st_size > file.stat().st_size


def test_a_session_goes_to_lines_and_back_with_what_describes_it(celeriac: Celeriac, tmp_path: Path) -> None:
    said: dict[str, Any] = {"query": "q", "user": "ana", "title": "t", "type": "group", "agent": "shop", "notes": "n"}
    said |= {"priority": 3, "tags": ["x"], "preferences": {"a": [1]}, "metadata": {"k": None}}
    session = celeriac.sessions.create(**said, permissions=["docs:read"], file_paths=["/docs"])
    session.history.add("user", "hi")
    environ, file = {"CELERIAC_DATA_DIR": str(celeriac.settings.data_dir)}, str(tmp_path / "session.jsonl")

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(command, list(arguments), env=environ)
        assert done.exit_code == 0, done.output
        return done

    run("sessions", "export", session.id, file)
    made = celeriac.sessions.get(json.loads(run("sessions", "import", file, "--json").stdout)["id"])
    shown, before = made.to_dict(), session.to_dict()
    names = [*said, "permissions", "file_paths"]
    assert {name: shown[name] for name in names} == {name: before[name] for name in names}
    assert before["query"] == "q" and made.id != session.id and made.history() == session.history()
    Path(file).write_text('{"record": "session", "plan_document": null, "tags": 3}\n')
    refused = CliRunner().invoke(command, ["sessions", "import", file], env=environ)
    assert refused.exit_code == 2 and "tags must be a list of texts" in refused.stderr


def test_what_can_be_read_only_once_loses_no_entry(celeriac: Celeriac, tmp_path: Path) -> None:
    text = '{"role": "user", "content": "hi"}\n' * 3
    file, pipe = tmp_path / "once.jsonl", tmp_path / "pipe"
    file.write_text(text)
    lines = Lines(file, 1000)
    assert check(lines, lambda entry: entry, False) == (3, [])
    file.write_text("")
    with pytest.raises(HistoryError, match=r"once\.jsonl had 3 entries, and 0 when it was read again"):
        list(entries_of(lines, 3, set()))
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=(text,), daemon=True).start()
    environ = {"CELERIAC_DATA_DIR": str(celeriac.settings.data_dir)}
    done = CliRunner().invoke(command, ["history", "import", str(pipe)], env=environ)
    assert done.exit_code == 0 and "3 entries" in done.stdout, done.output
    bad = CliRunner().invoke(command, ["history", "import", "-"], input="x\n", env=environ)
    assert bad.exit_code == 2 and "standard input has 1 line that is no entry" in bad.stderr


# -- moving ------------------------------------------------------------------------------------------------------------


def test_a_conversation_moves_through_all_places_and_loses_nothing(
    open_one: Callable[..., Celeriac], redis_server: RedisServer, tmp_path: Path
) -> None:
    celeriac = open_one()
    session = celeriac.sessions.create()
    session.history.add("system", "Be brief.")
    session.history.extend({"role": "user", "content": [n, 0.1], "timestamp": 1e9 + n / 7} for n in range(1100))
    session.history.add("user", "x", metadata={"important": True})
    before, window = session.history(), session.history.window(max_entries=5)
    for url in (f"file://{tmp_path / 'talks'}", redis_server.url, ""):
        assert celeriac.histories.move(session.id, url) == 1102
        assert session.history.count() == 0 and list(celeriac.histories.list()) == []
        celeriac = open_one(history_url=url)
        session = celeriac.sessions.get(session.id)
        assert session.history() == before and session.history.window(max_entries=5) == window


def test_entries_that_come_while_a_conversation_moves_move_too() -> None:
    class Growing(MemoryPlace):
        left = 2

        def delete(self, conversation: str, expected: int | None = None) -> int:
            if self.left:
                self.left -= 1
                self.append(conversation, [Item(b'{"late":%d}' % self.left)])
            return super().delete(conversation, expected)

    source, target = Growing(), MemoryPlace()
    source.append("a", [Item(b'{"n":1}', at=1.0)])
    assert move(source, target, "a") == 3
    assert [kept.body for kept in target.load("a")] == [b'{"n":1}', b'{"late":1}', b'{"late":0}']


def test_a_move_that_was_broken_off_goes_on_and_foreign_entries_stop_it() -> None:
    source, target = MemoryPlace(), MemoryPlace()
    source.append("a", [Item(b'{"n":%d}' % n, at=1.0) for n in range(5)])
    target.append("a", [Item(b'{"n":%d}' % n, at=1.0) for n in range(2)])
    assert move(source, target, "a") == 5 and target.count("a") == 5
    source.append("b", [Item(b'{"n":1}', at=1.0), Item(b"{}", at=1.0)])
    target.append("b", [Item(b'{"n":2}', at=1.0)])
    with pytest.raises(HistoryError, match="has another entry 1; nothing was deleted"):
        move(source, target, "b")
    assert source.count("b") == 2


def test_moving_to_the_same_place_by_another_name_loses_nothing(
    open_one: Callable[..., Celeriac], redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    folder, number = f"file://{tmp_path / 'talks'}", redis_server.url.rpartition("/")[2]
    aliases = {
        "": [""],
        folder: [f"{folder}/", f"file://{tmp_path}/link/talks", f"file://{tmp_path}/other/../talks"],
        redis_server.url: [redis_server.url.replace("127.0.0.1", "localhost"), f"{redis_server.url}?db={number}"],
    }
    for url, others in aliases.items():
        celeriac = open_one(history_url=url)
        session = celeriac.sessions.create()
        session.history.add("user", "stay")
        for other in others:
            with pytest.raises(HistoryError, match="live at .* already"):
                celeriac.histories.move(session.id, other)
        assert session.history.count() == 1 and list(celeriac.histories.list()) == [(session.id, 1)]
        with pytest.raises(HistoryError, match="allowed: a URL"):
            celeriac.histories.move(session.id, None)
        session.history.clear()


def test_a_place_that_cannot_make_calls_durable_says_so_when_it_is_chosen(
    open_one: Callable[..., Celeriac], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_one()
    assert not caplog.messages
    open_one(history_url=f"file://{tmp_path}")
    assert "calls of a conversation cannot be made durable there" in caplog.text
    open_one(history_url="memory:")
    assert "entries are gone when the process ends" in caplog.text
    for url in ("memory:x", "file:", "nowhere://x"):
        with pytest.raises(SettingsError, match="history_url = "):
            open_one(history_url=url)


def test_where_all_is_sealed_no_other_place_is_taken(open_one: Callable[..., Celeriac], tmp_path: Path) -> None:
    keys = str(tmp_path / "keys.toml")
    done = CliRunner().invoke(command, ["keys", "generate"], env={"CELERIAC_KEYS_FILE": keys})
    assert done.exit_code == 0, done.output
    sealed = open_one(keys_file=keys, encrypt="all")
    sealed.sessions.create().history.add("user", "a secret")
    with pytest.raises(SettingsError, match='not allowed with encrypt = "all"'):
        open_one(keys_file=keys, encrypt="all", history_url=f"file://{tmp_path / 'talks'}")


def test_elsewhere_entries_go_with_their_session_too(open_one: Callable[..., Celeriac], tmp_path: Path) -> None:
    celeriac = open_one(history_url=f"file://{tmp_path / 'talks'}")
    one, other = celeriac.sessions.create(), celeriac.sessions.create()
    for session in (one, other):
        session.history.add("user", "hello")
    assert one.history.clear() == 1 and [event.type for event in one.stream(follow=False)][-1] == "history.cleared"
    other.cancel()
    celeriac.sessions.delete(other.id)
    assert [path.name for path in (tmp_path / "talks").glob("*.jsonl")] == []


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_exports_imports_counts_shows_moves_and_clears(celeriac: Celeriac, tmp_path: Path) -> None:
    environ = {"CELERIAC_DATA_DIR": str(celeriac.settings.data_dir)}

    def run(*arguments: str, code: int = 0, input: bytes | None = None) -> Any:
        done = CliRunner().invoke(command, list(arguments), env=environ, input=input)
        assert done.exit_code == code, done.output
        return done

    session = celeriac.sessions.create("hi")
    session.history.add("user", "hello")
    session.history.add("assistant", "Good day.")
    for number, way in enumerate((("history", "export", session.id), ("sessions", "export", session.id, "--history"))):
        file = str(tmp_path / f"out{number}.jsonl")
        assert run(*way, file).stdout == f"{file}: 2 entries\n"
        assert [json.loads(text) for text in Path(file).read_text().splitlines()] == session.history()
    whole = str(tmp_path / "whole.jsonl")
    ranged = run("history", "show", session.id, "--from", "2", "--json").stdout
    assert [json.loads(text)["number"] for text in ranged.splitlines()] == [2]
    assert run("history", "show", session.id, "--to", "1", "--json").stdout.count("\n") == 1
    summed = run("history", "summarize", session.id, "--last", "1")
    assert summed.stdout == "assistant: Good day.\n" and "entries 2 to 2, by sentences" in summed.stderr
    assert json.loads(run("history", "summarize", session.id, "--json").stdout)["first"] == 1
    run("sessions", "export", session.id, whole)
    for source in (file, whole):
        made = json.loads(run("history", "import", source, "--json").stdout)
        assert made["entries"] == 2 and celeriac.sessions.get(made["id"]).history() == session.history()
    assert json.loads(run("history", "count", made["id"], "--json").stdout) == {"id": made["id"], "entries": 2}
    assert "Good day." in run("history", "show", session.id, "--last", "1").stdout
    listed = [json.loads(text) for text in run("history", "list", "--json").stdout.splitlines()]
    assert {"id": session.id, "entries": 2} in listed and len(listed) == 3

    before = len(celeriac.sessions.list())
    bad = run("history", "import", "-", code=2, input=b'{"role":"user"}\nno\n')
    assert "line 2: no JSON" in bad.stderr and len(bad.stderr.splitlines()) == 1
    assert len(celeriac.sessions.list(("active", "cancelled"))) == before
    told = json.loads(run("history", "import", "-", "--json", code=2, input=b"no\n").stdout)
    assert told["entries"] == 0 and told["bad"][0]["line"] == 1
    skipped = run("history", "import", "-", "--skip-bad", "--session", session.id, input=b'{"role":"user"}\nno\n')
    assert "1 entry, 1 line left out" in skipped.stdout and session.history.count() == 3

    run("history", "move", session.id, "--to", f"file://{tmp_path / 'talks'}")
    assert session.history.count() == 0 and (tmp_path / "talks" / f"{session.id}.jsonl").exists()
    assert "keeps nothing" in run("history", "move", "--all", "--to", "memory:", code=2).stderr
    assert run("history", "clear", made["id"], "--yes").stdout == f"{made['id']}  2 entries deleted\n"
    assert "no session" in run("history", "count", "nope", code=2).stderr
