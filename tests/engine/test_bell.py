"""Who is woken by what: each wake of a waiting thread takes time from those that work."""

from __future__ import annotations

from celeriac.orchestration.bell import Bell


def test_who_waits_for_rest_is_not_woken_by_each_change() -> None:
    bell = Bell()
    with bell.listen("s") as follower, bell.listen("s", at_rest=True) as waiter:
        bell.ring("s", at_rest=False)
        assert follower.wait(0) and not waiter.wait(0)
        bell.ring("s", at_rest=True)
        assert follower.wait(0) and waiter.wait(0)


def test_a_ring_for_another_session_wakes_nobody() -> None:
    bell = Bell()
    with bell.listen("s") as follower, bell.listen("s", at_rest=True) as waiter:
        bell.ring("t", at_rest=True)
        assert not follower.wait(0) and not waiter.wait(0)


def test_a_ring_before_the_wait_is_not_missed() -> None:
    bell = Bell()
    with bell.listen("s", at_rest=True) as waiter:
        bell.ring("s", at_rest=True)
        assert waiter.wait(0) and not waiter.wait(0)
