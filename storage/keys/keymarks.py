"""Which keys were active for a database: so that a wrong key is noticed before anything is overwritten."""

from __future__ import annotations

from sqlalchemy import Column, Double, Table, Text, bindparam, select, text

from ...errors import KeyMissing
from ..database import Database, Query, Transaction
from ..tables import metadata
from .sealing import KeyRing

#: The fingerprint of each key that was active for this database; no key can be made from it.
key_marks = Table(
    "key_marks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("first_at", Double, nullable=False),
)
_FIND = Query(select(key_marks.c.fingerprint).where(key_marks.c.id == bindparam("wanted")))
_ADD = Query(
    text("INSERT INTO key_marks (id, fingerprint, first_at) VALUES (:wanted, :seen, :at) ON CONFLICT (id) DO NOTHING")
)


def confirm(database: Database, keyring: KeyRing) -> None:
    """Note the active key, or see that it is the one that was active under its id before.

    Raises KeyMissing for another key, also one from another passphrase, and changes nothing then.
    """
    active = keyring.active
    seen = keyring.fingerprint(active)

    def note(tx: Transaction) -> str:
        tx.run(_ADD, wanted=active, seen=seen, at=tx.now())
        return str(tx.value(_FIND, wanted=active))

    known = database.read(lambda tx: tx.value(_FIND, wanted=active)) or database.write(note)
    if known != seen:
        raise KeyMissing(
            f"the active key {active!r} ({seen}) is not the key {active!r} that this database was used with ({known}); "
            "put that one back, or give the new one another id"
        )
