"""The states of sessions and steps and the moves between them: the one place that says what can follow what.

Step states, and the moves that lead out of each (`storage/steps.py` and `storage/graph.py` have one conditional UPDATE
for each move):

    blocked    waits for other steps        -> ready, waiting, skipped, cancelled
    ready      can be claimed               -> running, skipped, cancelled
    running    claimed under a lease        -> done, failed, dead, cancelled; ready (retry, lost or returned lease)
    waiting    a group whose members run    -> done, failed, cancelled
    done, failed, dead, skipped, cancelled  final: the first that is reached stays (`retry` and `restore` reopen)
"""

from __future__ import annotations

from ..errors import SessionError

#: What can be done to a session in a status, and the status that it leads to.
SESSION_MOVES: dict[str, dict[str, str]] = {
    "active": {
        "pause": "paused",
        "complete": "completed",
        "fail": "failed",
        "cancel": "cancelled",
        "restore": "paused",
    },
    "paused": {
        "resume": "active",
        "complete": "completed",
        "cancel": "cancelled",
        "archive": "archived",
        "restore": "paused",
    },
    "completed": {"archive": "archived", "restore": "paused"},
    "failed": {"retry": "active", "archive": "archived", "restore": "paused"},
    "cancelled": {"retry": "active", "archive": "archived", "restore": "paused"},
    "archived": {},
}
SESSION_STATES = tuple(SESSION_MOVES)
#: A session in one of these has no step that can still run.
SESSION_ENDED = ("completed", "failed", "cancelled", "archived")
#: In one of these, nothing goes on by itself.
AT_REST = (*SESSION_ENDED, "paused")


def after(status: str, action: str, session_id: str) -> str:
    """The status that `action` leads to. Raises SessionError naming both states if it is not allowed from `status`."""
    moves = SESSION_MOVES[status]
    if action in moves:
        return moves[action]
    target = next(m[action] for m in SESSION_MOVES.values() if action in m)
    allowed = ", ".join(moves) or "nothing"
    raise SessionError(
        f"cannot {action} session {session_id}: it is {status} and cannot become {target}; allowed: {allowed}"
    )
