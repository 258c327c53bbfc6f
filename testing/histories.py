"""What every place for conversations has to do, as a suite of pytest. Use it on one's own:

class TestMyPlace(HistoryPlaceSuite):
    @pytest.fixture
    def opened(self, tmp_path):
        return lambda: MyPlace(tmp_path)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator

import pytest

from ..errors import SessionNotFound
from ..storage.histories.protocol import Expecting, HistoryConflict, HistoryError, Item, Kept, Place

#: Bodies in which something gets lost where data is not kept apart from what is around it.
HARD_BODIES = (
    b"{}",
    b'{"a":1}',
    b'{"number":7,"timestamp":1.5}',
    '{"ä":"日本 😀","b":[]}'.encode(),
    b'{"text":"\\u0000 \\r\\n \\u2028 {} \\" -"}',
    b'{"deep":{"deep":[{"deep":null}]},"big":123456789012345678901234567890}',
    b'{"long":"' + b"0123456789" * 20_000 + b'"}',
)


class HistoryPlaceSuite:
    """Override the fixture `opened`: it gives a function that opens the place, again and again on the same entries.
    Override `names` too where only certain conversations can be had.
    """

    @pytest.fixture
    def opened(self) -> Callable[[], Place]:
        raise NotImplementedError("override the fixture `opened`")

    @pytest.fixture
    def names(self) -> tuple[str, str]:
        """The names of two conversations that are empty."""
        return "a-1", "a-10"

    @pytest.fixture
    def place(self, opened: Callable[[], Place]) -> Iterator[Place]:
        """The place, without any entries."""
        made = opened()
        yield made
        made.close()

    @pytest.fixture
    def name(self, names: tuple[str, str]) -> str:
        return names[0]

    def test_it_is_a_place_and_says_what_it_can(self, place: Place) -> None:
        assert isinstance(place, Place)
        assert place.capabilities.durable in (True, False)

    def test_what_was_never_said_is_not_there(self, place: Place, name: str) -> None:
        assert place.load(name) == [] and place.load(name, newest=True, limit=5) == [] and place.count(name) == 0
        assert place.delete(name) == 0 and list(place.conversations()) == []

    def test_entries_are_numbered_in_the_order_in_which_they_came(self, place: Place, name: str) -> None:
        assert place.append(name, [Item(b'{"n":1}', at=5.5)]) == (1, 1)
        assert place.append(name, [Item(b'{"n":2}', at=1.25), Item(b'{"n":3}', at=9.0)]) == (2, 3)
        expected = [Kept(1, 5.5, b'{"n":1}'), Kept(2, 1.25, b'{"n":2}'), Kept(3, 9.0, b'{"n":3}')]
        assert place.load(name) == expected and place.count(name) == 3

    def test_an_entry_without_a_time_gets_the_time_of_its_appending(self, place: Place, name: str) -> None:
        place.append(name, [Item(b"{}"), Item(b"{}")])
        first, second = place.load(name)
        assert abs(first.at - time.time()) < 60 and first.at == second.at

    def test_times_come_back_to_the_microsecond(self, place: Place, name: str) -> None:
        times = [0.0, -1.5, 1_700_000_000.123457, 7_000_000_000.000001]
        place.append(name, [Item(b"{}", at=at) for at in times])
        assert [kept.at for kept in place.load(name)] == times

    def test_bodies_come_back_as_they_were(self, place: Place, name: str) -> None:
        place.append(name, [Item(body) for body in HARD_BODIES])
        assert [kept.body for kept in place.load(name)] == list(HARD_BODIES)
        assert [kept.body for kept in place.load(name, newest=True, limit=3)] == list(HARD_BODIES[-3:])

    def test_a_large_entry_comes_back_as_it_was(self, place: Place, name: str) -> None:
        body = b'{"a":"' + b"0123456789" * 200_000 + b'"}'
        place.append(name, [Item(b'{"n":1}'), Item(body, mark=1), Item(b'{"n":3}')])
        assert [kept.body for kept in place.load(name, newest=True)] == [b'{"n":1}', body, b'{"n":3}']
        assert place.load(name, mark=1)[0].body == body

    @pytest.mark.parametrize("newest", [False, True])
    def test_ranges_and_limits_choose_what_they_say(self, place: Place, name: str, newest: bool) -> None:
        place.append(name, [Item(b'{"n":%d}' % n) for n in range(1, 1201)])
        for first, last, limit in (
            (1, None, None), (5, 9, None), (5, 9, 2), (1, None, 50), (1190, 2000, None), (900, None, 7), (0, 3, 2),
            (1201, None, None), (9, 5, None), (1, None, 0), (-4, 2, None), (1, 700, 3),
        ):  # fmt: skip
            numbers = list(range(max(first, 1), min(1200 if last is None else last, 1200) + 1))
            if limit is not None:
                numbers = numbers[max(len(numbers) - limit, 0) :] if newest else numbers[:limit]
            found = place.load(name, first, last, limit=limit, newest=newest)
            assert [kept.number for kept in found] == numbers, (first, last, limit)
            assert all(kept.body == b'{"n":%d}' % kept.number for kept in found)

    def test_marked_entries_are_found_apart(self, place: Place, name: str) -> None:
        place.append(name, [Item(b'{"n":%d}' % n, mark={10: 1, 20: 2, 30: 1, 40: 1}.get(n, 0)) for n in range(1, 51)])

        def numbers(**chosen: int) -> list[int]:
            return [kept.number for kept in place.load(name, **chosen)]  # type: ignore[arg-type]

        assert numbers(mark=1) == [10, 30, 40] and numbers(mark=2) == [20] and numbers(mark=3) == []
        assert numbers(mark=1, limit=1) == [10] and numbers(mark=1, limit=2, newest=True) == [30, 40]
        assert numbers(mark=1, first=11, last=39) == [30] and numbers(mark=1, last=39, limit=1, newest=True) == [30]

    def test_conversations_are_kept_apart_and_listed(self, place: Place, names: tuple[str, str]) -> None:
        for name in names:
            place.append(name, [Item(f'{{"of":"{name}"}}'.encode())])
        assert list(place.conversations()) == sorted(names)
        assert place.delete(names[0]) == 1
        assert list(place.conversations()) == [names[1]] and place.count(names[0]) == 0
        assert [kept.body for kept in place.load(names[1])] == [f'{{"of":"{names[1]}"}}'.encode()]

    def test_a_name_that_leads_elsewhere_is_refused(self, place: Place) -> None:
        for name in ("", "../a", "a/b", ".heads", "a}b", "a" * 101, "ä", "a b", "-a"):
            with pytest.raises((HistoryError, SessionNotFound)):
                place.append(name, [Item(b"{}")])

    def test_deleting_begins_anew_and_keeps_what_has_grown(self, place: Place, name: str) -> None:
        place.append(name, [Item(b'{"n":1}', mark=1), Item(b'{"n":2}')])
        with pytest.raises(HistoryConflict, match="1 entries but has 2"):
            place.delete(name, expected=1)
        assert place.count(name) == 2 and place.delete(name, expected=2) == 2
        assert place.load(name) == [] and place.load(name, mark=1) == []
        assert place.append(name, [Item(b'{"n":3}')]) == (1, 1) and place.load(name)[0].body == b'{"n":3}'

    def test_an_append_that_expects_another_length_leaves_nothing(self, place: Place, name: str) -> None:
        if not isinstance(place, Expecting):
            pytest.skip("it cannot append on a condition")
        items = [Item(b'{"n":1}', at=1.5), Item(b'{"n":2}', mark=1)]
        assert place.append_after(name, items, 0) == (1, 2)
        for other in (0, 1, 3):
            with pytest.raises(HistoryConflict, match=f"{other} entries but has 2"):
                place.append_after(name, items, other)
        assert place.count(name) == 2 and [kept.number for kept in place.load(name, mark=1)] == [2]
        assert place.append_after(name, items, 2) == (3, 4)

    def test_of_those_who_append_after_the_same_entry_one_does(
        self, opened: Callable[[], Place], place: Place, name: str
    ) -> None:
        if not isinstance(place, Expecting):
            pytest.skip("it cannot append on a condition")
        gate, told = threading.Barrier(4), list[str]()

        def write(writer: int) -> None:
            mine = place if writer % 2 or not place.capabilities.shared else opened()
            assert isinstance(mine, Expecting)
            gate.wait()
            for length in range(0, 30, 3):
                try:
                    mine.append_after(name, [Item(b'{"w":%d}' % writer)] * 3, length)
                    told.append("done")
                except HistoryConflict:
                    continue

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert place.count(name) == 3 * len(told) <= 30

    def test_an_append_that_breaks_off_leaves_nothing(self, place: Place, name: str) -> None:
        place.append(name, [Item(b'{"n":1}')])

        def breaks() -> Iterable[Item]:
            for n in range(2, 1400):
                yield Item(b'{"n":%d}' % n)
            raise KeyError("broken")

        with pytest.raises(KeyError):
            place.append(name, breaks())
        assert [kept.number for kept in place.load(name)] == [1] and place.count(name) == 1
        assert place.append(name, [Item(b'{"n":2}')]) == (2, 2) and place.load(name)[1].body == b'{"n":2}'
        assert place.append(name, []) == (3, 2)

    def test_writers_at_once_lose_nothing_and_each_append_stays_together(
        self, opened: Callable[[], Place], place: Place, name: str
    ) -> None:
        gate = threading.Barrier(4)
        told: list[tuple[int, int]] = []

        def write(writer: int) -> None:
            mine = place if writer % 2 or not place.capabilities.shared else opened()
            gate.wait()
            for n in range(10):
                told.append(mine.append(name, [Item(b'{"w":%d,"n":%d}' % (writer, n)) for _ in range(3)]))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = place.load(name)
        assert [kept.number for kept in found] == list(range(1, 121))
        assert sorted(told) == [(n, n + 2) for n in range(1, 121, 3)]
        for start in range(0, 120, 3):
            assert len({kept.body for kept in found[start : start + 3]}) == 1
        for writer in range(4):
            mine = [kept.body for kept in found if b'"w":%d,' % writer in kept.body]
            assert mine == [b'{"w":%d,"n":%d}' % (writer, n) for n in range(10) for _ in range(3)]

    def test_entries_outlive_their_place_where_it_is_durable(self, opened: Callable[[], Place], name: str) -> None:
        first = opened()
        if not first.capabilities.durable:
            pytest.skip("keeps nothing, and says so")
        first.append(name, [Item(b'{"n":1}', mark=1, at=3.5)])
        first.close()
        second = opened()
        assert second.load(name, mark=1) == [Kept(1, 3.5, b'{"n":1}')]
        assert second.append(name, [Item(b'{"n":2}')]) == (2, 2)
        second.close()
