"""Bringing under seal what takes more than its text: findings, checkpoints, what was made for search, blobs.

As `rewrapping`: in batches, while work goes on, and again at any time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final

from sqlalchemy import bindparam, delete, select, text, update

from ...errors import BlobNotFound, CeleriacError
from .. import checkpoints, findings, results
from ..blobs import BlobStore
from ..cache.tables import cached_results, cached_tags
from ..database import Database, Query, Transaction
from ..histories.tables import cold_history, history
from ..tables import blobs as blob_rows
from ..tables import checkpoints as checkpoint_rows
from ..tables import conflicts as conflict_rows
from ..tables import findings as finding_rows
from ..tables import results as result_rows
from .codec import MARK, Codec
from .rewrapping import BATCH, Tally, batches, fields_rewrapped, keys_in
from .sealing import KeyRing, is_sealed

Told = Callable[[Tally], None]

_f, _c, _k = finding_rows.c, conflict_rows.c, checkpoint_rows.c
_FINDINGS: Final = Query(
    select(_f.session_id, _f.id, _f.subject, _f.entity, _f.attribute, _f.value, _f.evidence)
    .where(~_f.value.startswith(MARK))
    .limit(BATCH)
)
_SEAL_FINDING: Final = Query(
    update(finding_rows)
    .where(_f.session_id == bindparam("session"), _f.id == bindparam("which"), _f.value == bindparam("before"))
    .values({name: bindparam(f"new_{name}") for name in ("subject", "entity", "attribute", "value", "evidence")})
)
#: A subject that is no hash: entity and attribute are apart by this character.
_APART: Final = "\x1f"
_SUBJECTS: Final = Query(select(_c.session_id, _c.id, _c.subject).where(_c.subject.contains(_APART)).limit(BATCH))
_SEAL_SUBJECT: Final = Query(
    update(conflict_rows)
    .where(_c.session_id == bindparam("session"), _c.id == bindparam("which"))
    .values(subject=bindparam("hashed"))
)
_CHECKPOINT: Final = Query(
    select(_k.base, _k.body, _k.digest).where(_k.session_id == bindparam("session"), _k.number == bindparam("which"))
)
_SEAL_CHECKPOINT: Final = Query(
    update(checkpoint_rows)
    .where(_k.session_id == bindparam("session"), _k.number == bindparam("which"), _k.body == bindparam("before"))
    .values(body=bindparam("after"), digest=bindparam("sum"))
)
_WORDS: Final = Query(text("DELETE FROM session_search"))
_PLAIN_RESULTS: Final = Query(
    select(cached_results.c.key).where(~cached_results.c.encoding.contains("sealed")).limit(BATCH)
)
_DROP_RESULT: Final = Query(delete(cached_results).where(cached_results.c.key == bindparam("wanted")))
_DROP_TAGS: Final = Query(delete(cached_tags).where(cached_tags.c.key == bindparam("wanted")))


def cover(database: Database, told: Told = lambda tally: None) -> Tally:
    """Seal plain findings and checkpoints, hash subjects, and drop what is made anew from plain text: the words of
    sessions, and results that were cached before there were keys. The database must be sealed as a whole.
    """
    codec, tally = database.codec, Tally()
    if codec is None or not codec.whole:
        return tally
    for step in (_seal_findings, _hash_subjects, _drop_results):
        while count := database.write(partial(step, codec=codec)):
            tally.sealed += count
            told(tally)
    _seal_checkpoints(database, codec, tally, told)
    database.write(lambda tx: tx.run(_WORDS))
    return tally


def _seal_findings(tx: Transaction, codec: Codec) -> int:
    rows = tx.rows(_FINDINGS)
    names = ("session_id", "id", "subject", "entity", "attribute", "value", "evidence")
    for row in rows:
        plain = dict(zip(names, row, strict=True))
        new = {f"new_{name}": value for name, value in findings.sealed(codec, plain).items() if name not in names[:2]}
        tx.run(_SEAL_FINDING, session=row[0], which=row[1], before=plain["value"], **new)
    return len(rows)


def _hash_subjects(tx: Transaction, codec: Codec) -> int:
    rows = tx.rows(_SUBJECTS)
    tx.many(_SEAL_SUBJECT, [{"session": s, "which": id_, "hashed": codec.digest(about)} for s, id_, about in rows])
    return len(rows)


def _drop_results(tx: Transaction, codec: Codec) -> int:
    values = [{"wanted": key} for (key,) in tx.rows(_PLAIN_RESULTS)]
    tx.many(_DROP_RESULT, values)
    tx.many(_DROP_TAGS, values)
    return len(values)


def _seal_checkpoints(database: Database, codec: Codec, tally: Tally, told: Told) -> None:
    for rows in batches(database, _k.body, _k.body.is_not(None)):
        plain = [(session_id, number) for session_id, number, body in rows if not is_sealed(bytes(body))]
        if plain:
            tally.sealed += database.write(partial(_seal_some, codec=codec, rows=plain, tally=tally))
        told(tally)


def _seal_some(tx: Transaction, codec: Codec, rows: list[tuple[str, int]], tally: Tally) -> int:
    count = 0
    for session_id, number in rows:
        found = tx.row(_CHECKPOINT, session=session_id, which=number)
        if found is None or is_sealed(bytes(found[1])):
            continue
        base, body, digest = found[0], bytes(found[1]), bytes(found[2])
        if checkpoints.digest_of(None, session_id, number, base, body) != digest:
            tally.refused.append(f"checkpoint {number} of session {session_id} does not match its checksum")
            continue
        after = codec.seal_bytes(body, checkpoints.BODY, session_id, number)
        sum_ = checkpoints.digest_of(codec, session_id, number, base, body)
        count += tx.run(_SEAL_CHECKPOINT, session=session_id, which=number, before=body, after=after, sum=sum_)
    return count


# -- blobs -------------------------------------------------------------------------------------------------------------

_HOLD: Final = Query(select(blob_rows.c.hash).where(blob_rows.c.hash == bindparam("wanted")).with_for_update())
#: What refers to blobs that are looked into.
_REFERRING: Final = (result_rows, history, cold_history)
_REFER: Final = [
    Query(update(one).where(one.c.blob == bindparam("wanted")).values(blob=bindparam("instead"))) for one in _REFERRING
]
_REFERRED: Final = [
    Query(select(one.c.session_id).where(one.c.blob == bindparam("wanted")).limit(1)) for one in _REFERRING
]


def rewrap_blobs(database: Database, blobs: BlobStore, keyring: KeyRing, told: Told = lambda tally: None) -> Tally:
    """Bring sealed blobs and the fields in them that a rule sealed under the active key, and outputs in plain ones
    under seal where the database is sealed as a whole. Blobs of keyed state are not looked into: see `restating`.
    """
    tally = Tally()
    gone: list[str] = []
    for rows in batches(database, blob_rows.c.size, blob_rows.c.size.is_not(None)):
        for name, _ in rows:
            try:
                sealed_with = blobs.key_of(name)
                if sealed_with is not None:
                    tally.found[sealed_with] += 1
                    tally.rewrapped += database.write(partial(_rewrap_blob, blobs=blobs, name=name))
                if _write_anew(database, blobs, name, keyring, tally):
                    gone.append(name)
            except BlobNotFound:  # deleted since, or written again when it is needed
                continue
            except CeleriacError as fault:
                tally.refused.append(str(fault))
        told(tally)
    for name in gone:  # at the end: who has just read a row may still be about to read its file
        database.write(lambda tx, name=name: results.delete_unreferenced(tx, blobs, [name]))  # type: ignore[misc]
    return tally


def _rewrap_blob(tx: Transaction, blobs: BlobStore, name: str) -> bool:
    return tx.row(_HOLD, wanted=name) is not None and blobs.rewrap(name)


def _write_anew(database: Database, blobs: BlobStore, name: str, keyring: KeyRing, tally: Tally) -> bool:
    """Store the content of an output or an entry as it would be now, under its new name, and let rows refer to that;
    whether the old one is not needed any more.
    """
    if not database.read(lambda tx: any(tx.row(query, wanted=name) for query in _REFERRED)):
        return True  # it is keyed state's, or was left by a run that was killed
    before = blobs.get(name)
    text_ = before.decode()
    data = fields_rewrapped(text_, f"blob {name}", keyring).encode()
    tally.found.update(keys_in(text_))
    is_plain = blobs.key_of(name) is None
    if data == before and not (is_plain and database.codec is not None and database.codec.whole):
        return False
    new = blobs.put(data)

    def work(tx: Transaction) -> None:
        results.refer_to(tx, blobs, new, data)
        for query in _REFER:
            tx.run(query, wanted=name, instead=new)

    database.write(work)
    if data != before:
        tally.rewrapped += 1
    else:
        tally.sealed += 1
    return True


def counted_blobs(database: Database, blobs: BlobStore) -> Tally:
    """How many blobs there are by the key that they are sealed with."""
    tally = Tally()
    for rows in batches(database, blob_rows.c.size, blob_rows.c.size.is_not(None)):
        for name, _ in rows:
            try:
                sealed_with: Any = blobs.key_of(name)
            except CeleriacError:
                continue
            if sealed_with is not None:
                tally.found[sealed_with] += 1
    return tally
