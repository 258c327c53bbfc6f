"""Writing a report's files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import os
import re
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import CeleriacError
from ...storage.disk import sync_folder
from ...storage.faults import point
from ..agents import AgentOutput
from ..reports.model import Report


def publish(request: dict[str, Any], ctx: Any) -> AgentOutput:
    """Write `report.md`, `report.html` and `report.pdf` into a folder.

    Request: `report` (as `Report.to_dict()` gives it), `out` (a folder, made where it is missing). Data: the paths by
    kind, `{"markdown", "html", "pdf"}`. Where no PDF can be made, the others are written and say why, the data lacks
    it, and an older `report.pdf` is removed, for it is not of this report. Raises CeleriacError where the folder
    cannot be written to.
    """
    from ..reports.html import render_html
    from ..reports.markdown import render_markdown

    report = Report.from_dict(request["report"])
    out = Path(request["out"])
    ctx.check()
    pdf, reason = _pdf(report)
    ctx.progress(0.5, "no PDF: " + reason if reason else "PDF set")
    if reason:
        report.skipped.append((str(out / "report.pdf"), f"not made: {reason}"))
    contents = {
        "markdown": ("report.md", render_markdown(report).encode()),
        "html": ("report.html", render_html(report).encode()),
    }
    if pdf is not None:
        contents["pdf"] = ("report.pdf", pdf)
    _sweep(out)
    paths: dict[str, str] = {}
    for kind, (name, content) in contents.items():
        ctx.check()
        paths[kind] = str(write_atomically(out / name, content))
    if pdf is None:
        (out / "report.pdf").unlink(missing_ok=True)
    ctx.progress(1.0, f"wrote {', '.join(name for name, _ in contents.values())}")
    return AgentOutput(data=paths)


def _pdf(report: Report) -> tuple[bytes | None, str]:
    """The report as PDF, or None and the reason."""
    from ..reports.pdf import PdfError, render_pdf

    try:
        return render_pdf(report), ""
    except PdfError as error:
        return None, str(error)


#: Seconds after which a temporary file of ours is taken to be left by a process that was killed.
LEFT_AFTER = 600.0
_TEMPORARY = re.compile(r"\.report\.(?:md|html|pdf)\.[a-z0-9_]{8}")


def write_atomically(path: Path, content: bytes) -> Path:
    """Write `content` to `path` by way of a temporary file beside it, synced, then renamed. Raises CeleriacError."""
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        point("before-report-rename")
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise CeleriacError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    return path


def _sweep(folder: Path) -> None:
    """Delete the temporary files that killed writers of reports left in a folder; one that cannot be deleted stays."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            left = _TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False)
            if left and time.time() - entry.stat(follow_symlinks=False).st_mtime > LEFT_AFTER:
                Path(entry.path).unlink(missing_ok=True)
