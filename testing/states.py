"""What every backend of keyed state has to do, as a suite of pytest. Use it on one's own:

class TestMyBackend(StateBackendSuite):
    @pytest.fixture
    def opened(self, tmp_path):
        return lambda: MyBackend(tmp_path)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from ..storage.states.protocol import Backend, Entry, Lasting, Listing, StateConflict, Write

#: Texts that get lost where a separator, a pattern, a path or a quote is not kept apart from data.
HARD_TEXTS = (
    "a",
    "a/b",
    "a/../b",
    "..",
    ".",
    "a:b",
    "a b",
    "A",
    "ä",
    "a\u0308",
    "日本",
    "😀",
    "%2F",
    "%",
    "*",
    "?[a-z]",
    "'\"\\",
    "}v:{",
    "\n\t",
    "x" * 1024,
    "\u20ac" * 341,
    "a\x01b",
    "names",
    "last",
    "-inf",
)


class StateBackendSuite:
    """Override the fixture `opened`: it gives a function that opens the backend, again and again on the same values."""

    @pytest.fixture
    def opened(self) -> Callable[[], Backend]:
        raise NotImplementedError("override the fixture `opened`")

    @pytest.fixture
    def backend(self, opened: Callable[[], Backend]) -> Iterator[Backend]:
        """The backend, without any values."""
        made = opened()
        yield made
        made.close()

    # -- values --------------------------------------------------------------------------------------------------------

    def test_it_is_a_backend_and_says_what_it_can(self, backend: Backend) -> None:
        assert isinstance(backend, Backend)
        assert backend.capabilities.durable in (True, False)

    def test_what_was_put_is_got_with_its_version_and_meta(self, backend: Backend) -> None:
        (version,) = backend.put("global", [Write("k", b'{"a":1}', '{"class":"x"}')])
        assert backend.get("global", ["k"]) == {"k": Entry(b'{"a":1}', version, '{"class":"x"}')}
        assert version > 0

    def test_what_was_never_put_is_not_there(self, backend: Backend) -> None:
        assert backend.get("global", ["k"]) == {} and backend.get("global", []) == {}
        assert backend.keys("global") == [] and backend.clear("global") == 0

    def test_bytes_that_are_no_text_come_back_as_they_were(self, backend: Backend) -> None:
        for body in (b"", b"\0\xff\xfe", bytes(range(256)), b'"\\u0000"', b"1.50", b"[1, 2]"):
            backend.put("global", [Write("k", body, '{"sealed":1}')])
            assert backend.get("global", ["k"])["k"].body == body

    def test_a_large_value_comes_back_as_it_was(self, backend: Backend) -> None:
        body = b'"' + b"0123456789" * 400_000 + b'"'
        backend.put("global", [Write("k", body), Write("small", b"1")])
        assert backend.get("global", ["k"])["k"].body == body
        backend.put("global", [Write("k", b"2")])
        assert {k: e.body for k, e in backend.get("global", ["k", "small"]).items()} == {"k": b"2", "small": b"1"}

    def test_keys_and_scopes_of_any_characters_are_told_apart(self, backend: Backend) -> None:
        scopes = [f"custom:{text[:512]}" for text in HARD_TEXTS]
        for scope in scopes[:12]:
            backend.put(scope, [Write(key, f'"{n}"'.encode()) for n, key in enumerate(HARD_TEXTS)])
        for scope in scopes:
            found = backend.get(scope, HARD_TEXTS)
            expected = {key: f'"{n}"'.encode() for n, key in enumerate(HARD_TEXTS)} if scope in scopes[:12] else {}
            assert {key: entry.body for key, entry in found.items()} == expected
            assert backend.keys(scope) == sorted(expected)

    def test_a_scope_that_is_the_beginning_of_another_shows_none_of_it(self, backend: Backend) -> None:
        backend.put("agent:a", [Write("k", b"1")])
        backend.put("agent:ab", [Write("k", b"2"), Write("bk", b"3")])
        assert backend.clear("agent:a") == 1
        assert backend.keys("agent:a") == [] and backend.keys("agent:ab") == ["bk", "k"]

    def test_scopes_that_have_values_are_listed(self, backend: Backend) -> None:
        if not isinstance(backend, Listing):
            pytest.skip("it cannot list its scopes")
        scopes = [f"custom:{text[:100]}" for text in HARD_TEXTS if len(text) < 100] + ["global", "step:a%2Fb/c"]
        assert backend.scopes() == []
        for scope in scopes:
            backend.put(scope, [Write("}names", b"1"), Write("b", b"2")])
        assert backend.scopes() == sorted(scopes)

    # -- versions ------------------------------------------------------------------------------------------------------

    def test_versions_of_a_key_rise_and_are_never_given_again(self, backend: Backend) -> None:
        seen = []
        for _ in range(3):
            seen += backend.put("global", [Write("k", b"1")])
            seen += backend.put("global", [Write("k", b"1")])
            seen += backend.put("global", [Write("k", None)])
        backend.put("global", [Write("k", b"1")])
        backend.clear("global")
        seen += backend.put("global", [Write("k", b"1")])
        assert seen == sorted(set(seen)) and seen[0] > 0

    def test_deleting_what_is_not_there_gives_version_0(self, backend: Backend) -> None:
        assert backend.put("global", [Write("k", None)]) == [0]
        assert backend.keys("global") == []

    def test_a_write_that_expects_another_version_is_refused_and_changes_nothing(self, backend: Backend) -> None:
        (version,) = backend.put("global", [Write("k", b"1")])
        with pytest.raises(StateConflict, match="'k'"):
            backend.put("global", [Write("other", b"2"), Write("k", b"2", expected=version + 1)])
        with pytest.raises(StateConflict):
            backend.put("global", [Write("k", b"2", expected=0)])
        with pytest.raises(StateConflict):
            backend.put("global", [Write("none", b"2", expected=version)])
        with pytest.raises(StateConflict):
            backend.put("global", [Write("k", None, expected=version + 1)])
        assert backend.get("global", ["k", "other", "none"]) == {"k": Entry(b"1", version)}
        backend.put("global", [Write("k", b"2", expected=version), Write("new", b"3", expected=0)])
        assert {k: e.body for k, e in backend.get("global", ["k", "new"]).items()} == {"k": b"2", "new": b"3"}

    def test_a_version_of_before_a_deletion_is_not_taken_for_the_new_value(self, backend: Backend) -> None:
        (old,) = backend.put("global", [Write("k", b"1")])
        backend.put("global", [Write("k", None)])
        backend.put("global", [Write("k", b"1")])
        with pytest.raises(StateConflict):
            backend.put("global", [Write("k", b"2", expected=old)])

    def test_of_many_who_expect_the_same_version_one_wins(self, backend: Backend) -> None:
        (version,) = backend.put("global", [Write("k", b"0")])
        won: list[int] = []

        def attempt(number: int) -> None:
            try:
                backend.put("global", [Write("k", b"%d" % number, expected=version)])
                won.append(number)
            except StateConflict:
                pass

        _at_once(attempt, 8)
        assert len(won) == 1 and backend.get("global", ["k"])["k"].body == b"%d" % won[0]

    def test_of_many_who_make_the_same_key_one_wins(self, backend: Backend) -> None:
        for key in ("a", "b", "c"):
            won: list[int] = []

            def attempt(number: int, key: str = key, won: list[int] = won) -> None:
                try:
                    backend.put("global", [Write(key, b"%d" % number, expected=0)])
                    won.append(number)
                except StateConflict:
                    pass

            _at_once(attempt, 8)
            assert len(won) == 1

    def test_several_writes_are_seen_together_or_not_at_all(self, backend: Backend) -> None:
        backend.put("global", [Write("a", b"0"), Write("b", b"0")])
        over = threading.Event()
        torn: list[object] = []

        def look() -> None:
            while not over.is_set():
                found = backend.get("global", ["a", "b"])
                if found["a"].body != found["b"].body:
                    torn.append(found)

        reader = threading.Thread(target=look)
        reader.start()
        for number in range(1, 60):
            backend.put("global", [Write("a", b"%d" % number), Write("b", b"%d" % number)])
        over.set()
        reader.join()
        assert torn == []

    # -- lists ---------------------------------------------------------------------------------------------------------

    def test_keys_are_listed_by_prefix_in_the_order_of_their_code_points_page_by_page(self, backend: Backend) -> None:
        names = [
            "a",
            "ab",
            "abc",
            "b",
            "B",
            "ab/",
            "ab0",
            "abä",
            "ab\U0001f600",
            "ab\uffff",
            "ab\ud7ff",
            "ab\U0010ffff",
        ]
        backend.put("global", [Write(name, b"1") for name in names])
        assert backend.keys("global") == sorted(names)
        wanted = sorted(name for name in names if name.startswith("ab"))
        assert backend.keys("global", "ab") == wanted
        assert backend.keys("global", "ab", limit=2) == wanted[:2]
        assert backend.keys("global", "ab", after=wanted[1], limit=3) == wanted[2:5]
        assert backend.keys("global", "ab", after="a") == wanted and backend.keys("global", "ab", after="b") == []
        assert backend.keys("global", "ab\ud7ff") == ["ab\ud7ff"]
        assert backend.keys("global", "ab\U0010ffff") == ["ab\U0010ffff"] and backend.keys("global", "zz") == []
        assert backend.keys("global", after="ab") == [name for name in sorted(names) if name > "ab"]
        assert backend.keys("global", limit=0) == []

    def test_clearing_a_scope_leaves_others_alone(self, backend: Backend) -> None:
        backend.put("global", [Write(f"k{n}", b"1") for n in range(1200)])
        backend.put("agent:x", [Write("k1", b"2")])
        assert len(backend.keys("global")) == 1200
        assert backend.clear("global") == 1200 and backend.keys("global") == []
        assert backend.get("global", ["k1"]) == {} and backend.get("agent:x", ["k1"])["k1"].body == b"2"

    # -- time to live --------------------------------------------------------------------------------------------------

    def test_the_time_that_values_have_left_is_told(self, backend: Backend) -> None:
        if not isinstance(backend, Lasting):
            pytest.skip("it cannot tell how long values last")
        backend.put("global", [Write("k", b"1", ttl=0.1), Write("long", b"2", ttl=60), Write("stays", b"3")])
        found = backend.left("global", ["long", "stays", "none"])
        assert found.keys() == {"long"} and 50 < found["long"] <= 60
        assert backend.left("custom:none", ["long"]) == {}
        time.sleep(0.15)
        assert backend.left("global", ["k"]) == {}

    def test_a_value_with_a_time_to_live_is_gone_after_it(self, backend: Backend) -> None:
        (version,) = backend.put("global", [Write("k", b"1", ttl=0.3), Write("stays", b"2", ttl=60), Write("x", b"3")])[
            :1
        ]
        assert backend.get("global", ["k", "stays"])["k"] == Entry(b"1", version, passing=True)
        until = time.monotonic() + 5
        while "k" in backend.get("global", ["k"]) and time.monotonic() < until:
            time.sleep(0.02)
        assert backend.get("global", ["k"]) == {} and backend.keys("global") == ["stays", "x"]
        with pytest.raises(StateConflict):
            backend.put("global", [Write("k", b"2", expected=version)])
        assert backend.put("global", [Write("k", b"2", expected=0)])[0] > version
        backend.put("global", [Write("stays", b"3")])
        assert not backend.get("global", ["stays"])["stays"].passing

    # -- others --------------------------------------------------------------------------------------------------------

    def test_values_outlive_their_backend_where_it_is_durable(self, opened: Callable[[], Backend]) -> None:
        first = opened()
        if not first.capabilities.durable:
            pytest.skip("keeps nothing, and says so")
        (version,) = first.put("global", [Write("k", b"1")])
        first.close()
        second = opened()
        assert second.get("global", ["k"]) == {"k": Entry(b"1", version)}
        assert second.put("global", [Write("k", b"2", expected=version)])[0] > version
        second.close()

    def test_a_watch_tells_of_what_another_has_changed(self, opened: Callable[[], Backend], backend: Backend) -> None:
        watch = backend.watch()
        if watch is None:
            pytest.skip("has no watch, and says so")
        other = opened()
        other.put("global", [Write("k", b"1")])
        assert watch.look() is None, "the first look cannot know"
        assert watch.look() == set()
        other.put("global", [Write("k", b"2")])
        assert watch.look() in (None, {("global", "k")})
        assert watch.look() == set()
        other.put("custom:}v:%", [Write("}v:", b"2")])
        assert watch.look() in (None, {("custom:}v:%", "}v:")})
        other.clear("global")
        assert watch.look() in (None, {("global", "k")})
        other.close()


def _at_once(work: Callable[[int], None], count: int) -> None:
    gate = threading.Barrier(count)

    def begin(number: int) -> None:
        gate.wait()
        work(number)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
