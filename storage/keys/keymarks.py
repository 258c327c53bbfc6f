"""Which keys were active for a database: so that a wrong key is noticed before anything is overwritten."""

from __future__ import annotations

from typing import Final

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


#: Not an id of a key: under it is noted, once rows are sealed as a whole, what the key to hash with makes of it.
_ALL: Final = "encrypt=all"


def confirm(database: Database, keyring: KeyRing | None, whole: bool = False) -> None:
    """Note the active key, or see that it is the one that was active under its id before; `whole`: that rows and blobs
    are sealed from here on.

    Raises KeyMissing for another key, also one from another passphrase, for another key to hash with, and for none
    where rows were sealed; and changes nothing then.
    """
    sealed = database.read(lambda tx: tx.value(_FIND, wanted=_ALL))
    if keyring is None:
        if sealed is not None:
            raise KeyMissing(
                'this database was used with encrypt = "all", and no keys are set: name the keys_file, or set '
                "CELERIAC_KEYS"
            )
        return
    active = keyring.active
    seen = keyring.fingerprint(active)
    if (known := _noted(database, active, seen)) != seen:
        raise KeyMissing(
            f"the active key {active!r} ({seen}) is not the key {active!r} that this database was used with ({known}); "
            "put that one back, or give the new one another id"
        )
    if not whole and sealed is None:
        return
    hashed = keyring.digest(_ALL)
    if _noted(database, _ALL, hashed) != hashed:
        raise KeyMissing(
            "the `hash` key of the ring is not the one that this database was sealed with; put that one back: it is "
            "never replaced"
        )


def _noted(database: Database, mark: str, seen: str) -> str:
    """What is noted under a mark: what was there before, else `seen`, from now on."""

    def note(tx: Transaction) -> str:
        tx.run(_ADD, wanted=mark, seen=seen, at=tx.now())
        return str(tx.value(_FIND, wanted=mark))

    return database.read(lambda tx: tx.value(_FIND, wanted=mark)) or database.write(note)
