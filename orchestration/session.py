"""One session as users handle it. All state is in the database."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SessionError
from ..storage import checkpoints, findings
from ..storage.events import Event
from . import control, streams
from .describing import change
from .guard.access import needs
from .guard.doors import place_of
from .kin import Kin
from .plans import Plan
from .sizes import document_text
from .turn import Turn

if TYPE_CHECKING:
    from .conversations.sending import MessageResult
    from .history.compaction import Compacted
    from .history.history import History
    from .keeping.pruning import Pruned


class Session(Kin):
    """A handle on one session: following it, and what can be done to it."""

    @functools.cached_property
    def history(self) -> History:
        """What was said in it; `history(last=50)` gives the last entries."""
        from .history.history import History

        return History(self._engine, self.id, self._require)

    def add(self, **entry: Any) -> int:
        """Append an entry to its history, such as `user_request=..., agent=..., response=...`; gives its number."""
        return self.history.append(entry)

    def compact(self, keep_last: int = 50, *, dry_run: bool = False) -> Compacted:
        """Sum up older entries of its history and put them away; as `history.compact`."""
        return self.history.compact(keep_last, dry_run=dry_run)

    def prune(self, strategy: str, **limits: Any) -> Pruned:
        """Let messages of it go; `strategy` and limits (keep, max_bytes, ttl, similarity, dry_run) as `Pruning.run`."""
        from .keeping.pruning import Pruning

        return Pruning(self._engine, self._caller).run(strategy, session=self.id, **limits)

    def uncompact(self) -> int:
        """Put back what `compact` has put away; gives how many entries."""
        return self.history.uncompact()

    def cold(self) -> Iterator[dict[str, Any]]:
        """The entries that `compact` has put away, in order."""
        return self.history.cold()

    @needs("write")
    def send_message(
        self,
        text: str,
        max_iterations: int = 10,
        *,
        agent: str | None = None,
        model: str | None = None,
        timeout: float | None = None,
        listen: Callable[[Event], None] | None = None,
    ) -> MessageResult:
        """Say something, and wait for the answer: success, result, steps, error.

        The session's agent (or `agent`; none: `celeriac.chat`) answers in a step that the workers run, with up to
        `max_iterations` requests to its model, or to `model`. Messages are answered in the order in which they were
        sent. `listen` is given the events of the step and its calls, live. Raises SessionError where nothing can be
        sent, and TimeoutError after `timeout` seconds: the message is answered all the same.
        """
        from .conversations import sending

        sending.check_waiting(timeout, listen)
        engine, beyond = self._engine, self.last_event()
        name = sending.send(engine, self.id, text, max_iterations, agent, model)
        if self._attend is not None:
            self._attend()
        return sending.answer_to(
            engine,
            self.id,
            name,
            timeout=timeout,
            listen=listen,
            waker=self._waker,
            check=lambda: self._require("read"),
            beyond=beyond,
        )

    # -- following it ------------------------------------------------------------------------------------------------

    @needs("read")
    def wait(self, timeout: float | None = None) -> str:
        """Wait (seconds; None: for ever) until it has ended or is paused; gives its status. Raises TimeoutError."""
        if self._attend is not None:
            self._attend()
        return streams.wait(self._engine, self.id, timeout, self._waker, lambda: self._require("read"))

    @needs("read")
    def stream(self, from_offset: int = 0, follow: bool = True) -> Iterator[Event]:
        """Its events after number `from_offset`, live, in order, without a gap; see `streams.stream`."""
        if follow and self._attend is not None:
            self._attend()
        return streams.stream(self._engine, self.id, from_offset, follow, self._waker, lambda: self._require("read"))

    # -- what can be done to it --------------------------------------------------------------------------------------

    @needs("admin")
    def run(self, plan: Plan) -> Session:
        """Give a session that was created without a plan its plan, and start it."""
        control.add_plan(self._engine, self.id, plan)
        return self

    @needs("write")
    def pause(self) -> None:
        """Start no new step; running ones finish; a checkpoint is written."""
        control.pause(self._engine, self.id)

    @needs("write")
    def resume(self) -> None:
        """Go on with the first step that has not ended."""
        control.resume(self._engine, self.id)

    @needs("write")
    def cancel(self) -> None:
        """Stop everything; what is done stays done."""
        control.cancel(self._engine, self.id)

    @needs("write")
    def retry(self) -> int:
        """Run failed, dead and cancelled steps again, and those skipped because of them; gives how many."""
        return control.retry(self._engine, self.id)

    @needs("write")
    def complete(self, report: Any = None) -> None:
        """End it with a final report and a final checkpoint."""
        control.complete(self._engine, self.id, report)

    @needs("write")
    def archive(self, recursive: bool = False) -> None:
        """Put it away into a file, when ended or paused, `recursive` all below it first; `c.archives.restore(id)`."""
        control.archive(self._engine, self.id, (lambda one: self._other(one)._require("write")) if recursive else None)

    @needs("write")
    def checkpoint(self, label: str = "") -> str:
        """Write a checkpoint now, to be kept; gives its id."""
        return control.checkpoint(self._engine, self.id, label)

    @needs("write")
    def mark(self, checkpoint_id: str | int, marked: bool = True) -> None:
        """Keep a checkpoint for good, or no longer."""
        number = control.checkpoint_number(self.id, checkpoint_id)

        def work(turn: Turn) -> None:
            if not checkpoints.mark(turn.tx, self.id, number, marked):
                checkpoints.state_at(turn.tx, self.id, number)
            told = {"checkpoint": number, "marked": bool(marked)}
            turn.event("checkpoint.marked", component="checkpoints", data=told)

        self._engine.in_turn(self.id, work)

    @needs("write")
    def restore(self, checkpoint_id: str | int) -> str:
        """Go back to a checkpoint, all or nothing; gives the id of the checkpoint that undoes it. Resume to go on."""
        return control.restore(self._engine, self.id, checkpoint_id)

    @needs("write")
    def change(
        self,
        *,
        tags: Sequence[str] | None = None,
        notes: str | None = None,
        preferences: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        file_paths: Sequence[str | Path] | None = None,
        **columns: Any,
    ) -> None:
        """Change what describes it: tags, notes, preferences, metadata, file_paths, title, type, agent, priority,
        pinned.

        Raises SessionError for anything else, and for a value that is not allowed.
        """
        paths = None if file_paths is None else [str(path) for path in file_paths]
        documents = {"notes": notes, "preferences": preferences, "metadata": metadata, "file_paths": paths}
        change(self._engine, self.id, columns, tags, documents)

    @needs("write")
    def resolve_conflict(self, conflict: int, value: Any, by: str = "person") -> None:
        """Settle a conflict by hand. Raises SessionError for an unknown conflict."""
        said = self._engine.guard.apply({"value": value, "by": by}, place_of(self.id))
        text = document_text(self._engine.settings, "resolution", said)

        def work(turn: Turn) -> None:
            if not findings.resolve(turn.tx, self.id, conflict, "person", text):
                raise SessionError(f"session {self.id} has no conflict {conflict}")
            turn.event("conflict.resolved", component="conflicts", data={"conflict": conflict, **said})

        self._engine.in_turn(self.id, work)
