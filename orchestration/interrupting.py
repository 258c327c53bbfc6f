"""Stopping what runs in another thread: cancelling what an event loop runs there, or raising an exception in it."""

from __future__ import annotations

import asyncio
import ctypes
import sys


def cancel_in_loop(thread: int) -> bool:
    """Cancel what an event loop is run for in another thread, as asyncio does it; False where none is seen to run.

    An exception that is raised just anywhere in a loop may hit a callback, which swallows it: then nobody is stopped,
    and what the callback should have done is missing for good (AnyIO gives the next run a thread that has ended, and
    that run waits for ever).
    """
    loop, future = _run_in(thread)
    if loop is None or future is None:
        return False
    try:
        loop.call_soon_threadsafe(future.cancel)
    except RuntimeError:  # it was closed just now
        return False
    return True


def _run_in(thread: int) -> tuple[asyncio.AbstractEventLoop | None, asyncio.Future[object] | None]:
    """The innermost loop that a thread runs, and what for. Loops that are not written in Python are not seen."""
    frame = sys._current_frames().get(thread)
    while frame is not None and frame.f_code is not asyncio.BaseEventLoop.run_until_complete.__code__:
        frame = frame.f_back
    if frame is None:
        return None, None
    loop, future = frame.f_locals.get("self"), frame.f_locals.get("future")
    return (loop, future) if asyncio.isfuture(future) else (None, None)


class _TakenBack(BaseException):
    """Raised in a thread in the place of what is taken back."""


def raise_in_thread(thread: int, why: type[Exception] | None) -> None:
    """Have an exception raised in another thread at its next line of Python; None, from the thread itself, takes back
    one that was not raised yet.
    """
    if why is not None:
        _ask(thread, why)
        return
    # Up to Python 3.12 a pending exception that is only cleared leaves a flag up: every call is slower then, and
    # a traced one never begins. Raising lowers the flag, so another is raised in its place, here.
    try:
        _ask(thread, _TakenBack)
        for _ in range(1000):
            pass
    except _TakenBack:
        return


def _ask(thread: int, why: type[BaseException]) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(why))
