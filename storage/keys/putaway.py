"""Entries of histories that were put away, brought under the active key: what seals them, and the fields in them that a
rule sealed.

As `rewrapping`: in batches, while work goes on, and again at any time.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from sqlalchemy import bindparam, update

from ...errors import CeleriacError
from ..database import Database, Query, Transaction
from ..histories import cold
from ..histories.tables import cold_history
from .codec import Codec
from .covering import Told
from .rewrapping import Tally, batches, fields_rewrapped, keys_in
from .sealing import KeyRing, is_sealed, key_of

_c = cold_history.c
_WRITE: Final = Query(
    update(cold_history)
    .where(
        _c.session_id == bindparam("session"),
        _c.compaction == bindparam("of"),
        _c.first == bindparam("start"),
        _c.body == bindparam("before"),
    )
    .values(body=bindparam("after"))
)


def rewrap_cold(database: Database, keyring: KeyRing, told: Told = lambda tally: None) -> Tally:
    """Bring all of them under the active key, and plain ones under seal where the database is sealed as a whole."""
    tally, whole = Tally(), database.codec is not None and database.codec.whole
    codec = Codec(keyring, whole)
    for rows in batches(database, _c.body, _c.body.is_not(None)):
        for session_id, compaction, first, body in rows:
            try:
                new = _renewed(codec, (session_id, compaction, first), bytes(body), tally)
            except CeleriacError as fault:
                tally.refused.append(str(fault))
                continue
            if new is not None:
                values = {"session": session_id, "of": compaction, "start": first, "before": body, "after": new}
                written = database.write(partial(_write, values=values))
                if is_sealed(bytes(body)):
                    tally.rewrapped += written
                else:
                    tally.sealed += written
        told(tally)
    return tally


def _write(tx: Transaction, values: dict[str, Any]) -> int:
    return tx.run(_WRITE, **values)


def _renewed(codec: Codec, key: tuple[Any, ...], body: bytes, tally: Tally) -> bytes | None:
    """The body as it would be now; None where it is that already."""
    was_sealed = is_sealed(body)
    plain = codec.open_bytes(body, cold.BODY, *key) if was_sealed else body
    place = f"a message of session {key[0]} that was put away"
    new = cold.rewritten(plain, lambda text: fields_rewrapped(text, place, codec.keyring))
    tally.found.update(_keys(body, plain))
    if new is None and was_sealed:
        return codec.keyring.rewrap(body, place)
    if new is None and not codec.whole:
        return None
    return codec.seal_bytes(new or plain, cold.BODY, *key) if was_sealed or codec.whole else new


def _keys(body: bytes, plain: bytes) -> list[str]:
    found = [key_of(body)] if is_sealed(body) else []
    return found + [key for text in cold.texts(plain) for key in keys_in(text)]


def counted_cold(database: Database, keyring: KeyRing) -> Tally:
    """How many of them, and of the fields in them, there are by the key that they are sealed with."""
    tally, codec = Tally(), Codec(keyring, False)
    for rows in batches(database, _c.body, _c.body.is_not(None)):
        for *key, body in rows:
            data = bytes(body)
            try:
                plain = codec.open_bytes(data, cold.BODY, *key) if is_sealed(data) else data
                tally.found.update(_keys(data, plain))
            except CeleriacError as fault:
                tally.refused.append(str(fault))
    return tally
