"""Log records without secrets: those of the `celeriac` loggers, and what Celery reports of agents' steps.

Records are cleaned when they are made, before any handler sees them, so that it does not matter which handlers there
are. The text of a record is kept as it is, with its arguments apart, unless a secret is in it.
"""

from __future__ import annotations

import logging
import traceback
import weakref
from typing import Any

from .policy import Policy

#: Celery's report of a failed task, with its traceback, is written by this logger.
TRACE = "celery.app.trace"
_OWN = "celeriac"
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}

# Replaced as a whole: other threads write log lines meanwhile.
_policies: tuple[weakref.ref[Policy], ...] = ()
_formatter = logging.Formatter()


class Redaction(logging.Filter):
    """Cleans a record, also what was added to it with `extra`; never holds one back."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Clean the record in place."""
        if record.name == TRACE and any(
            policy is not None and policy.withholds for policy in (one() for one in _policies)
        ):
            _withhold(record)
        _clean(record)
        for name in vars(record).keys() - _STANDARD:
            setattr(record, name, _cleaned(getattr(record, name)))
        return True


_filter = Redaction()


def install(policy: Policy) -> None:
    """Clean log records of this process with the policy, beside those that are installed already, while it is in use
    anywhere.
    """
    global _policies
    logging.getLogger(TRACE).addFilter(_filter)  # a second time it changes nothing
    _wrap_factory()
    _policies = (*(one for one in _policies if one() not in (None, policy)), weakref.ref(policy))


def guarded(logger: logging.Logger) -> logging.Logger:
    """The logger, whose records are cleaned with all that is added to them."""
    logger.addFilter(_filter)  # a second time it changes nothing
    return logger


def _wrap_factory() -> None:
    make = logging.getLogRecordFactory()
    if getattr(make, "celeriac", False):
        return

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        if _policies and record.name.startswith(_OWN):
            _clean(record)
        return record

    factory.celeriac = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(factory)


def _withhold(record: logging.LogRecord) -> None:
    """Leave what an agent's fault says out of Celery's report: where it was raised is told, and of what type it is."""
    about = record.args if isinstance(record.args, dict) else {}
    if not str(about.get("name", "")).startswith("celeriac.agent."):
        return
    record.msg, record.args = "Task %s[%s] failed; what it says is in its session", (about["name"], about.get("id"))
    vars(record).pop("data", None)
    if record.exc_info:
        type_, _, frames = record.exc_info
        lines = ["Traceback (most recent call last):\n", *traceback.format_tb(frames), getattr(type_, "__name__", "")]
        record.exc_text, record.exc_info = "".join(lines), None


def _clean(record: logging.LogRecord) -> None:
    try:
        said = record.getMessage()
    except Exception:  # logging would print message and arguments to standard error
        said = f"{record.msg} (and arguments that do not fit)"
        record.msg, record.args = said, ()
    clean = _text(said)
    if clean != said:
        record.msg, record.args = clean, ()
    if record.exc_info and not record.exc_text:
        raised = _formatter.formatException(record.exc_info)
        clean = _text(raised)
        if clean != raised:
            record.exc_text, record.exc_info = clean, None


def _text(text: str) -> str:
    for one in _policies:
        policy = one()
        if policy is not None:
            text = policy.text(text)
    return text


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict):
        return {key: _cleaned(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(one) for one in value]
    return value
