"""`celeriac keys`: the keys that things are sealed with: make one, list them, bring what is sealed under the newest."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import KeyMissing, SettingsError
from .invocation import Invocation, pass_invocation
from .printing import document, json_option, say, table
from .research import BadInput

if TYPE_CHECKING:
    from ..config import Settings
    from ..orchestration.guard.access import Right
    from ..storage.keys.rewrapping import Tally
    from ..storage.keys.sealing import KeyRing
    from ..tasks.app import Celeriac


@click.group()
def keys() -> None:
    """Keys of encryption: they lie in the file that `keys_file` names, or in CELERIAC_KEYS."""


@keys.command()
@click.option("--id", "key_id", metavar="ID", help="Name of the key (default: the date).")
@click.option("--passphrase", is_flag=True, help="Make the key from a passphrase (CELERIAC_PASSPHRASE, or asked for).")
@json_option
@pass_invocation
def generate(invocation: Invocation, key_id: str | None, passphrase: bool, as_json: bool) -> None:
    """Add a key to keys_file and make it the active one. The file is made if it is not there; nobody else can read it.

    What was sealed before opens with the keys that it was sealed with: leave them in the file.
    """
    from ..storage.keys import keyfile

    path = _file(invocation.settings())
    key_id = key_id or f"{datetime.now(UTC):%Y-%m-%d}"
    made = keyfile.new_derived(key_id, _passphrase()) if passphrase else keyfile.new_key()
    before = keyfile.read(path, os.environ) if path.exists() else keyfile.Keys("", {})
    after = before.with_key(key_id, made)
    keyfile.write(path, after)
    if as_json:
        document({"file": str(path), "active": after.active, "keys": list(after.secrets)})
    else:
        print(f"{path}: the key {key_id} is active now; keep a copy of the file where the database is not")


def _file(settings: Settings) -> Path:
    from ..storage.keys import keyfile, sealing

    if os.environ.get(sealing.VARIABLE):
        raise BadInput(f"{sealing.VARIABLE} is set, and wins over keys_file; add the key there, or unset it")
    if not settings.keys_file:
        raise BadInput('no keys_file is set; name one, as in keys_file = "/etc/celeriac/keys.toml"')
    return keyfile.path_of(settings.keys_file)


def _passphrase() -> str:
    from ..storage.keys import keyfile

    said = os.environ.get(keyfile.PASSPHRASE)
    if said is None:
        said = click.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True)
    return str(said)


@keys.command("list")
@json_option
@pass_invocation
def list_(invocation: Invocation, as_json: bool) -> None:
    """List the keys: how much in the database and in blobs is sealed with each, how many archives and which backups
    need it.
    """
    from ..orchestration import rotating
    from ..orchestration.backups import keyed

    ring = _ring(invocation.settings())
    with _everybodys(invocation, "read") as c:
        tally, backups = rotating.counted(c.engine), keyed.needed(c.engine)
    found: list[dict[str, Any]] = [
        {
            "id": key_id,
            "active": key_id == ring.active,
            "in_ring": key_id in ring.ids,
            "fingerprint": _fingerprint(ring, key_id),
            "sealed": tally.found[key_id],
            "archives": tally.archives[key_id],
            "backups": backups.get(key_id, []),
        }
        for key_id in dict.fromkeys((*ring.ids, *sorted({*tally.found, *tally.archives, *backups})))
    ]
    if as_json:
        document(found)
        return
    counts = ("sealed objects", "archives", "backups")
    rows = [
        (one["id"], _state(one), one["fingerprint"] or "", one["sealed"], one["archives"], len(one["backups"]))
        for one in found
    ]
    table(("key", "state", "fingerprint", *counts), rows, right=counts)
    _say_backups(backups, ring.active)


@contextlib.contextmanager
def _everybodys(invocation: Invocation, right: Right) -> Iterator[Celeriac]:
    """A Celeriac for what is about all tenants. Raises BadInput within one, AccessDenied without the right to all."""
    with invocation.celeriac() as c:
        if c.settings.tenant:
            raise BadInput(
                f"keys are for all tenants; they cannot be looked at or rotated within {c.settings.tenant!r}"
            )
        c.require(right, "*")
        yield c


def _ring(settings: Settings) -> KeyRing:
    from ..storage.keys.sealing import KeyRing

    ring = KeyRing.load(settings)
    if ring is None:
        raise SettingsError("no keys are set: name a keys_file and run `celeriac keys generate`, or set CELERIAC_KEYS")
    return ring


def _fingerprint(ring: KeyRing, key_id: str) -> str | None:
    try:
        return ring.fingerprint(key_id)
    except KeyMissing:
        return None


def _state(one: dict[str, Any]) -> str:
    return "active" if one["active"] else "kept" if one["in_ring"] else "missing"


@keys.command()
@json_option
@pass_invocation
@click.pass_context
def rotate(ctx: click.Context, invocation: Invocation, as_json: bool) -> None:
    """Bring what is sealed under the active key, archives as well, in batches, while work goes on; and, with
    encrypt = "all", what lies plain under seal. Backups stay as they are; those that need other keys are named.

    Interrupted, it is simply run again. Exit code 1 if something could not be opened; that stays as it is.
    """
    from ..orchestration import rotating
    from ..orchestration.backups import keyed

    ring = _ring(invocation.settings())
    with _everybodys(invocation, "admin") as c:
        tally = rotating.rotate(c.engine, ring, _tell_on_terminal())
        left, backups = rotating.counted(c.engine), keyed.needed(c.engine)
    for said in tally.refused[:20]:
        say(f"celeriac: {said}")
    others = {key_id: count for key_id, count in (left.found + left.archives).items() if key_id != ring.active}
    if as_json:
        counts = {"rewrapped": tally.rewrapped, "sealed": tally.sealed, "archives": tally.renewed}
        old = {key_id: ids for key_id, ids in backups.items() if key_id != ring.active}
        document(
            {"active": ring.active, **counts, "refused": len(tally.refused), "others": others, "backups": old},
        )
    else:
        print(f"{tally.rewrapped} rewrapped with {ring.active}, {len(tally.refused)} could not be opened")
        if tally.renewed:
            print(f"{tally.renewed} archives written anew")
        if tally.sealed:
            print(
                f"{tally.sealed} sealed that lay plain; the database's free pages may hold them until its next VACUUM"
            )
        if not others and not tally.refused:
            print(f"no other key is needed any more{' but for backups' if set(backups) - {ring.active} else ''}")
        _say_backups(backups, ring.active)
    ctx.exit(1 if tally.refused else 0)


def _say_backups(backups: dict[str, list[str]], active: str) -> None:
    """Which backups need other keys than the active one: they are not rewritten."""
    for key_id, ids in sorted(backups.items()):
        if key_id != active:
            print(f"{key_id} is needed for these backups, which are not rewritten: {', '.join(ids)}")


def _tell_on_terminal() -> Callable[[Tally], None]:
    def tell(tally: Tally) -> None:
        if sys.stderr.isatty():
            click.echo(
                f"\r{sum(tally.found.values())} looked at, {tally.rewrapped} rewrapped, {tally.sealed} sealed, "
                f"{tally.renewed} archives",
                err=True,
                nl=False,
            )

    return tell
