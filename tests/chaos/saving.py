"""T21: backups are made while the load of T2 runs and workers are killed; one backup is killed; each is a snapshot."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from backup.test_damage import files_of

from celeriac.config import Settings
from celeriac.errors import CeleriacError
from celeriac.orchestration.agents import Registry
from celeriac.orchestration.backups.backups import Backups
from celeriac.orchestration.engine import Engine
from celeriac.storage import schema
from chaos import plans, verdict
from chaos.recipes import Size
from chaos.trial import Trial
from chaos.verdict import Broken
from chaos.workers import TESTS, environment

#: Seconds from the start of one backup to that of the next, in the long form.
EVERY = 2.0


class Saver:
    """The process that makes backups, and what it said."""

    def __init__(self, trial: Trial, folder: Path, pause: float, full: bool = False) -> None:
        settings = trial.settings
        arguments = [str(settings["database_url"]), str(settings["data_dir"]), str(folder), str(pause)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "chaos.saver", *arguments, "full" if full else "changes"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            env=environment({}),
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.strip() for line in iter(self.process.stdout.readline, ""))

    def said(self, word: str) -> list[str]:
        return [line for line in list(self.lines) if line.startswith(word)]

    @property
    def is_inside(self) -> bool:
        """Whether a backup is being made."""
        return len(self.said("begin")) > len(self.said("made"))

    def kill(self) -> list[str]:
        """Kill it; gives the ids of the backups that it made."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        return [line.split()[1] for line in self.said("made")]


def backups_under_load(trial: Trial, size: Size) -> None:
    """T21: whatever is killed, each backup that is listed is a state that there was, whole, and nothing else is."""
    folder = trial.folder / "backups"
    workers = [trial.worker(), trial.worker()]
    for _ in range(size.sessions):
        trial.start(plans.eight_steps(trial.dice.uniform(20, 80)))
    trial.until(trial.starts(1), what="the first step starts")
    saver, made = Saver(trial, folder, size.pause), list[str]()
    for n in range(size.rounds):
        time.sleep(size.pause)
        victim = trial.dice.choice(workers)
        trial.fault()
        victim.kill()
        if n == size.rounds // 2:
            made += saver.kill()
            made += _killed_inside(trial, folder)
            saver = Saver(trial, folder, size.pause)
        victim.start()
    trial.drain(120)
    seen = len(saver.said("made"))
    trial.until(lambda: len(saver.said("made")) > seen, 30, "a backup of the end")
    made += saver.kill()
    trial.judge()
    _check(trial, folder, made)


def _killed_inside(trial: Trial, folder: Path) -> list[str]:
    """Kill a process in the middle of a backup; gives the ids of those that it made."""
    for _ in range(10):
        saver = Saver(trial, folder, 0, full=True)
        trial.until(lambda: len(saver.said("made")), 30, "a whole backup")  # noqa: B023
        time.sleep(trial.dice.uniform(0, 0.05))
        made = saver.kill()
        if saver.is_inside:
            return made
    raise Broken("no backup could be killed while it was made")


def _check(trial: Trial, folder: Path, made: list[str]) -> None:
    final = _events(trial.celeriac.engine)
    with _empty(trial.folder / "looking", folder) as engine:
        backups = Backups(engine, engine.caller)
        listed = [one.id for one in backups.list()]
        if not set(made) <= set(listed) or len(listed) > len(made) + 2:  # killed after it was whole, before it said so
            raise Broken(f"made: {made}; listed: {listed}")
        if bad := [found.problems for one in listed if not (found := backups.verify(one)).ok]:
            raise Broken(f"seed {trial.seed}: listed backups are not whole: {bad}")
    for number, backup_id in enumerate(listed):
        with _empty(trial.folder / f"restored-{number}", folder) as engine:
            backups = Backups(engine, engine.caller)
            if number == len(listed) - 1:
                _tampered(trial, engine, backups, backup_id)
            backups.restore(backup_id, safety=False)
            _is_snapshot(trial, engine, backup_id, final)


@contextmanager
def _empty(folder: Path, backups_dir: Path) -> Iterator[Engine]:
    """An empty place to restore into."""
    settings = Settings.load({"data_dir": str(folder), "backups_dir": str(backups_dir)}, environ={})
    engine = Engine(settings, Registry())
    schema.ensure(engine.database)
    try:
        yield engine
    finally:
        engine.database.dispose()


def _tampered(trial: Trial, engine: Engine, backups: Backups, backup_id: str) -> None:
    """A changed byte in any object of a backup, or in its manifest: it is refused, and nothing of it is in."""
    manifest = backups.folder / f"{backup_id}.backup"
    needed = set(backups._needed([backup_id]))
    for path in [manifest, trial.dice.choice([one for one in files_of(backups.folder) if one.name in needed])]:
        sound = path.read_bytes()
        changed = bytearray(sound)
        changed[trial.dice.randrange(len(sound))] ^= trial.dice.randrange(1, 256)
        path.write_bytes(bytes(changed))
        try:
            backups.restore(backup_id, safety=False)
        except CeleriacError:
            if found := _events(engine):
                raise Broken(f"seed {trial.seed}: a refused backup left events of {list(found)}") from None
        else:
            raise Broken(f"seed {trial.seed}: backup {backup_id} was restored with a changed byte in {path.name}")
        path.write_bytes(sound)


def _is_snapshot(trial: Trial, engine: Engine, backup_id: str, final: dict[str, list[Any]]) -> None:
    """What was restored is a state that there was: of each session the first events, and all that came before the
    newest of them; no step that ended without its result, no blob that is named and not there.
    """
    what = f"seed {trial.seed}: backup {backup_id}"
    try:
        verdict.check_database(engine)
    except AssertionError as fault:
        raise Broken(f"{what}: {fault}") from fault
    if problems := verdict.violations_of_snapshot(verdict.Tables(engine), trial.ledger):
        raise Broken("\n".join([f"{what}:", *problems[:20]]))
    found = _events(engine)
    for session_id, events in found.items():
        if events != final.get(session_id, [])[: len(events)]:
            raise Broken(f"{what}: the events of {session_id} are not the first of those that it has now")
    if not trial.celeriac.engine.database.is_sqlite:
        return  # there, transactions that began earlier may commit later
    newest = max((event[-1] for events in found.values() for event in events), default=0.0)
    for session_id, events in final.items():
        older = [event for event in events if event[-1] < newest]
        if len(found.get(session_id, [])) < len(older):
            raise Broken(f"{what}: events of {session_id} are missing that are older than others that it has")


def _events(engine: Engine) -> dict[str, list[Any]]:
    """(number, type, step, turn, time) of the events of each session, in order."""
    from sqlalchemy import text

    found: dict[str, list[Any]] = defaultdict(list)
    ask = text("SELECT session_id, seq, type, step, turn, at FROM events ORDER BY session_id, seq")
    for session_id, *event in engine.database.read(lambda tx: tx.rows(ask)):
        found[session_id].append(event)
    return dict(found)
