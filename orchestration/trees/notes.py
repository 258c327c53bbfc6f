"""What is going on between sessions of a tree outside of the database, noted in it: a document of a session, so that
who comes after one that was killed knows what that one was about to do.
"""

from __future__ import annotations

from typing import Any, Final

from ...storage import serial, sessions
from ...storage.database import Transaction

_NAME: Final = "elsewhere"
#: Branches that are being made of a session: when that began, by id; 0: it is given up.
MAKING: Final = "making"
#: Entries of a branch that are being brought into its parent.
ENTRIES: Final = "entries"
#: The token of the last part of a branch's state whose merge is recorded.
STATE: Final = "state"


def noted(tx: Transaction, session_id: str, what: str) -> Any:
    """What is noted of a session; None if nothing is."""
    return _all(tx, session_id).get(what)


def note(tx: Transaction, session_id: str, what: str, value: Any) -> None:
    """Note something of a locked session, in place of what was noted of it."""
    found = {**_all(tx, session_id), what: value}
    sessions.put_document(tx, session_id, _NAME, serial.encode(found).decode())


def _all(tx: Transaction, session_id: str) -> dict[str, Any]:
    text = sessions.document(tx, session_id, _NAME)
    return serial.decode(text) if text else {}
