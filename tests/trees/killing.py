"""Processes that are killed before or after the nth thing that they do to what others see."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from celeriac.storage.database import Database
from celeriac.storage.histories.files import FilePlace
from celeriac.storage.histories.redis import RedisPlace
from celeriac.storage.states.files import FileBackend
from celeriac.storage.states.redis import RedisBackend
from celeriac.storage.states.rocksdb import RocksBackend

_EFFECTS: list[tuple[type[Any], str]] = [
    (Database, "write"),
    (FilePlace, "_append"),
    (RedisPlace, "_append"),
    (FileBackend, "put"),
    (RedisBackend, "put"),
    (RocksBackend, "put"),
]


def _arm(nth: int) -> None:
    """Let this process die at the nth place: each effect has one before it and one after it."""
    passed = 0

    def pass_() -> None:
        nonlocal passed
        passed += 1
        if passed == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def armed(whole: Callable[..., Any]) -> Callable[..., Any]:
        def effect(*given: Any, **named: Any) -> Any:
            pass_()
            found = whole(*given, **named)
            pass_()
            return found

        return effect

    for kind, name in _EFFECTS:
        setattr(kind, name, armed(getattr(kind, name)))


def is_killed(nth: int, work: Callable[[Callable[[], None]], None]) -> bool:
    """Do `work` in a process of its own, which dies at the nth place after `work` has called what it is given; False if
    it came to its end before.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            work(lambda: _arm(nth))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.waitstatus_to_exitcode(status) == 0
    return False


def every_death(work: Callable[[Callable[[], None]], None], most: int = 60) -> Iterator[int]:
    """The numbers of all places at which `work` can die, each after it did; last 0, after it came to its end."""
    for nth in range(1, most):
        if not is_killed(nth, work):
            assert nth > 4, "it does next to nothing"
            yield 0
            return
        yield nth
    raise AssertionError(f"it has over {most} places to die at")
