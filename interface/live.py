"""How a session is shown while it runs: a view that renews itself on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from .board import STEP_ENDED, Board, Line
from .printing import SHORT_ID, STYLES, clean, console, lasting

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

    from ..storage.events import Event

#: The view is drawn at most so often, in times a second.
DRAWS_A_SECOND = 8
#: Plain lines tell of a fan-out at most once in so many seconds.
PLAIN_SECONDS = 2.0
#: Running steps and partial results that the view has room for.
RUNNING_SHOWN = 4
PARTIALS_SHOWN = 3
_SPIN = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_GLYPHS = {"done": "✓", "failed": "✗", "dead": "✗", "skipped": "–", "cancelled": "■", "paused": "‖"}
_ASCII = {"done": "+", "failed": "x", "dead": "x", "skipped": "-", "cancelled": "#", "paused": "="}
_EIGHTHS = " ▏▎▍▌▋▊▉"
#: Width of a fan-out's bar.
_CELLS = 20


class View(Protocol):
    """What follows a session and shows it."""

    def __enter__(self) -> View: ...

    def __exit__(self, *_: object) -> None: ...

    def event(self, event: Event) -> None:
        """An event that the board has just taken in."""

    def draw(self) -> None:
        """Show the board as it is; called several times a second."""

    def notice(self, text: str) -> None:
        """Something that the user must know."""


def view_of(board: Board, stream: TextIO, quiet: bool) -> View:
    """The view that fits where `stream` goes to."""
    if quiet:
        return Silence()
    shown = console(stream)
    return Panel(board, shown) if shown.is_terminal and not shown.is_dumb_terminal else Lines(board, shown)


class Silence:
    """Shows nothing."""

    def __enter__(self) -> Silence:
        return self

    def __exit__(self, *_: object) -> None: ...

    def event(self, event: Event) -> None: ...

    def draw(self) -> None: ...

    def notice(self, text: str) -> None: ...


class Lines:
    """One line for each event that matters; a fan-out tells of itself every two seconds."""

    def __init__(self, board: Board, shown: Console) -> None:
        self._board = board
        self._console = shown
        self._told: dict[str, float] = {}

    def __enter__(self) -> Lines:
        board = self._board
        self._say("session", f"{board.id}  {clean(board.query or board.plan, 60)}")
        return self

    def __exit__(self, *_: object) -> None: ...

    def event(self, event: Event) -> None:
        data = event.data if isinstance(event.data, dict) else {}
        name = clean(event.step or "")
        match event.type:
            case "step.started" | "step.done":
                self._of_step(event, name)
            case "step.failed" | "step.dead" | "step.skipped":
                reason = data.get("error") or data.get("condition") or ""
                self._say(event.type.removeprefix("step."), clean(f"{name}: {reason}", 200))
            case "step.retry":
                error = clean(data.get("error", ""), 140)
                self._say("retry", f"{name}  in {data.get('after_seconds', 0):.1f} s: {error}")
            case "step.expanded":
                self._say("opened", f"{name}  {data.get('steps')} steps")
            case "step.returned":
                self._say("returned", f"{name}  its worker was lost; it runs again")
            case "step.waiting":
                self._say("waiting", f"{name}  for another step that computes the same")
            case "step.unserved":
                self._say("unserved", clean(f"{name}: {data.get('error')}; it waits for another worker", 200))
            case "conflict.raised":
                self._say("conflict", _conflict(data))
            case "session.paused" | "session.active" | "session.cancelled" | "session.completed" | "session.failed":
                self._say(event.type.removeprefix("session."), clean(data.get("error") or "", 200))

    def _of_step(self, event: Event, name: str) -> None:
        line = self._board.line_of(event.step or "")
        if not line.many:
            cached = isinstance(event.data, dict) and "cached" in event.data
            self._say(event.type.removeprefix("step."), f"{name}  from the cache" if cached else name)
            return
        ended, total, now = line.count(*STEP_ENDED), line.total, time.monotonic()
        if event.step == line.name:  # the group itself: its last member has said it
            return
        if event.type == "step.done" and (ended == total or now - self._told.get(line.name, now - 3) > PLAIN_SECONDS):
            self._told[line.name] = now
            self._say("done" if ended == total else "running", f"{line.name}  {ended}/{total}")

    def draw(self) -> None: ...

    def notice(self, text: str) -> None:
        self._say("note", text)

    def _say(self, word: str, text: str) -> None:
        self._console.out(
            f"{lasting(self._board.elapsed(time.time())):>10}  {word:<9} {text}".rstrip(), highlight=False
        )
        self._console.file.flush()


class Panel:
    """The view on a terminal: the plan with its counts, what runs now, what was found, conflicts, time left."""

    def __init__(self, board: Board, shown: Console) -> None:
        from rich.live import Live

        self._board = board
        self._console = shown
        self._live = Live(console=shown, auto_refresh=False, transient=False, vertical_overflow="crop")
        self._drawn = 0.0
        self._glyphs = _GLYPHS if "utf" in shown.encoding else _ASCII
        self._left: float | None = None

    def __enter__(self) -> Panel:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._board.notice = ""
        self._live.update(self._render(), refresh=True)
        self._live.__exit__(None, None, None)

    def event(self, event: Event) -> None: ...

    def notice(self, text: str) -> None:
        self._board.notice = text
        self._drawn = 0.0

    def draw(self) -> None:
        now = time.monotonic()
        if now - self._drawn >= 1 / DRAWS_A_SECOND:
            self._drawn = now
            self._live.update(self._render(), refresh=True)

    # -- rendering ---------------------------------------------------------------------------------------------------

    def _render(self) -> RenderableType:
        from rich.console import Group

        parts = [self._title(), self._figures(), *self._steps()]
        if not self._board.ended:
            parts += [*self._running(), *self._partials()]
        parts += self._notes()
        room = max(self._console.size.height - 1, 5)
        for part in parts:
            part.no_wrap, part.overflow = True, "ellipsis"
        return Group(*parts[:room])

    def _text(self, *pieces: tuple[str, str]) -> Text:
        from rich.text import Text

        return Text.assemble(*((text, style) for text, style in pieces if text))

    def _title(self) -> Text:
        board = self._board
        return self._text((clean(board.query or board.plan or "session", 300), "bold"))

    def _figures(self) -> Text:
        board, now = self._board, time.time()
        pieces = [(f"{board.id[:SHORT_ID]}  ", "dim"), (board.status, STYLES.get(board.status, ""))]
        pieces.append((f"  {lasting(board.elapsed(now))}", ""))
        left = self._smooth(board.left(now))
        if left is not None and not board.ended:
            pieces.append((f"  about {_round(left)} left", "dim"))
        if board.conflicts:
            pieces.append((f"  {_counted(board.conflicts)}", "yellow"))
        return self._text(*pieces)

    def _smooth(self, left: float | None) -> float | None:
        """An estimate that does not jump about: each new one moves it by a fifth."""
        if left is not None:
            self._left = left if self._left is None else self._left + (left - self._left) / 5
        return self._left if left is not None else None

    def _steps(self) -> list[Text]:
        lines = list(self._board.lines.values())
        most = max(self._console.size.height - 6 - RUNNING_SHOWN - PARTIALS_SHOWN, 3)
        hidden = 0
        while len(lines) > most and (lines[0].state in STEP_ENDED or len(lines) > 2 * most):
            lines.pop(0)
            hidden += 1
        width = min(max((len(line.name) for line in lines), default=0), 32)
        shown = [self._text((f"  … {hidden} earlier steps", "dim"))] if hidden else []
        shown += [self._step(line, width) for line in lines[:most]]
        if len(lines) > most:
            shown.append(self._text((f"  … {len(lines) - most} more steps", "dim")))
        return [self._text((" ", "")), *shown]

    def _step(self, line: Line, width: int) -> Text:
        state = line.state
        pieces = [(f"  {self._glyph(state)} ", STYLES.get(state, "")), (f"{clean(line.name, 32):<{width}}", "")]
        if state == "blocked":
            pieces = [(text, "dim") for text, _ in pieces]
        total, ended = line.total, line.count(*STEP_ENDED)
        if line.many and total and (line.groups or total > 1):
            digits = len(str(total))
            pieces.append((f"  {ended:>{digits}}/{total}  ", ""))
            pieces += self._bar(ended / total)
            failed = line.count("failed", "dead")
            pieces.append((f"  {failed} failed" if failed else "", "red"))
        elif state == "running":
            part, task = self._board.running.get(line.name, (0.0, ""))
            pieces.append((f"  {part:>4.0%}" if part else "", ""))
            pieces.append((f"  {clean(task, 120)}", "dim"))
        if line.error and (state in ("failed", "dead") or not line.many):
            pieces.append((f"  {clean(line.error, 160)}", "dim" if state == "skipped" else "red"))
        return self._text(*pieces)

    def _glyph(self, state: str) -> str:
        if state in self._glyphs:
            return self._glyphs[state]
        if state != "running":
            return "·" if self._glyphs is _GLYPHS else "."
        if self._board.status == "paused" and not self._board.running:
            return self._glyphs["paused"]
        turn = int(time.monotonic() * DRAWS_A_SECOND)
        return _SPIN[turn % len(_SPIN)] if self._glyphs is _GLYPHS else "|/-\\"[turn % 4]

    def _bar(self, part: float) -> list[tuple[str, str]]:
        if self._glyphs is not _GLYPHS:
            full = int(part * _CELLS)
            return [(f"[{'#' * full}{'.' * (_CELLS - full)}]", "")]
        full, rest = divmod(int(part * _CELLS * 8), 8)
        drawn = "█" * full + (_EIGHTHS[rest] if rest else "")
        return [(drawn, "green" if part >= 1 else "cyan"), ("░" * (_CELLS - len(drawn)), "dim")]

    def _running(self) -> list[Text]:
        """What fans out and runs now: the lines above show only counts of it."""
        board = self._board
        members = [name for name in board.running if board.line_of(name).many]
        if not members:
            return []
        rows = [self._text((" ", ""))]
        for name in members[:RUNNING_SHOWN]:
            part, task = board.running[name]
            rows.append(
                self._text((f"    {clean(name, 40)}", "cyan"), (f"  {clean(task, 200)}" if task else "", "dim"))
            )
        if len(members) > RUNNING_SHOWN:
            rows.append(self._text((f"    … {len(members) - RUNNING_SHOWN} more", "dim")))
        return rows

    def _partials(self) -> list[Text]:
        board = self._board
        if not board.partials:
            return []
        head = f"  found so far ({board.partial_count})"
        rows = [self._text((f"    {text}", "")) for text in list(board.partials)[-PARTIALS_SHOWN:]]
        return [self._text((" ", "")), self._text((head, "bold")), *rows]

    def _notes(self) -> list[Text]:
        return [self._text((" ", "")), self._text((f"  {self._board.notice}", "yellow"))] if self._board.notice else []


def _conflict(data: dict[str, Any]) -> str:
    values = " / ".join(clean(value, 60) for value in data.get("values", ()))
    return clean(f"{data.get('severity')}: {data.get('entity')}, {data.get('attribute')}: {values}", 200)


def _counted(severities: dict[Any, str]) -> str:
    counts = Counter(severities.values())
    told = ", ".join(f"{counts[word]} {word}" for word in ("high", "medium", "low") if counts[word])
    number = len(severities)
    return f"{number} conflict{'s' if number != 1 else ''} ({told})"


def _round(seconds: float) -> str:
    """A time left, no more exact than an estimate is."""
    if seconds < 10:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 5) * 5} s" if seconds < 60 else f"{round(seconds / 60)} min"
