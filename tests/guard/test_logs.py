"""No line of a log shows a secret, whatever handler writes it and however it was logged."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from celeriac.orchestration.guard import Policy, logs

SECRET = "sk-" + "a1B2" * 8


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(name)s %(message)s"))
    policy = Policy.load("")
    logging.getLogger().addHandler(handler)
    logs.install(policy)
    yield stream
    logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("name", ["celeriac", "celeriac.engine", "celeriac.agent.new", logs.TRACE])
def test_messages_arguments_and_tracebacks_are_cleaned(name: str, written: io.StringIO) -> None:
    logger = logging.getLogger(name)
    logger.error(f"in the text {SECRET}")
    logger.error("as an argument %s", SECRET)
    logger.error("by name %(key)s", {"key": SECRET})
    logger.error("does not fit %d", SECRET)
    try:
        raise ValueError(f"in an error {SECRET}") from KeyError(f"and its cause {SECRET}")
    except ValueError as fault:
        logger.exception("failed: %r", fault)
    text = written.getvalue()
    assert "a1B2" not in text
    assert text.count("[redacted]") >= 6 and "Traceback" in text and "KeyError" in text


def test_what_celery_adds_to_its_report_and_agents_to_theirs_is_cleaned(written: io.StringIO) -> None:
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    for logger in (logging.getLogger(logs.TRACE), logs.guarded(logging.getLogger("celeriac.agent.x"))):
        logger.error("x", extra={"data": {"exc": f"ValueError({SECRET!r})", "list": [SECRET]}, "key": SECRET})
    logging.getLogger().removeHandler(handler)
    assert len(seen) == 2 and all("a1B2" not in str(vars(record)) for record in seen)


def test_a_line_without_a_secret_keeps_its_arguments_apart_and_other_logs_are_left_alone(
    caplog: pytest.LogCaptureFixture, written: io.StringIO
) -> None:
    logging.getLogger("celeriac.x").error("%s of %s", 1, "two")
    logging.getLogger("theirs").error("%s", SECRET)
    assert caplog.records[0].args == (1, "two")
    assert SECRET in written.getvalue()


def test_lines_are_logged_while_other_policies_are_installed(written: io.StringIO) -> None:
    made = [Policy.load("") for _ in range(1500)]
    faults: list[Exception] = []
    end = threading.Event()

    def log() -> None:
        try:
            while not end.is_set():
                logs._text("")
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=log) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for policy in made:
            logs.install(policy)
    finally:
        end.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert not faults
