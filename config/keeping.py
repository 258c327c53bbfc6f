"""The settings that say what is kept, and for how long: of retention and of pruning.

In a file they can stand in tables of their own: `events_days = 30` below `[retention]` is `retention_events_days = 30`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, Field

#: Settings whose names begin so can be written as a table of a file.
TABLES: Final = ("retention", "prune")


def _on_or_off(value: Any) -> Any:
    return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value


Days = Annotated[float, Field(ge=0, le=100_000)]
Count = Annotated[int, Field(ge=0)]
Switch = Annotated[Literal["off", "on"], BeforeValidator(_on_or_off)]


class Keeping(BaseModel):
    """What is kept, and for how long."""

    retention_completed_days: Days = Field(
        description="Days after its last change after which retention deletes a completed session. 0: never."
    )
    retention_failed_days: Days = Field(
        description="Days after which retention deletes a failed session without dead steps. 0: never."
    )
    retention_dead_days: Days = Field(
        description="Days after which retention deletes a failed session with dead steps. 0: never."
    )
    retention_cancelled_days: Days = Field(
        description="Days after which retention deletes a cancelled session. 0: never."
    )
    retention_archived_days: Days = Field(
        description="Days after which retention deletes an archived session. 0: never."
    )
    retention_paused_days: Days = Field(description="Days after which retention deletes a paused session. 0: never.")
    retention_idle_days: Days = Field(
        description="Days without a change after which retention deletes an active session that has no work left, as a"
        " conversation. 0: never."
    )
    retention_checkpoints_days: Days = Field(
        description="Days after which retention deletes a checkpoint, though it is among the newest; the newest, and"
        " final, manual and marked ones stay. 0: never."
    )
    retention_events_days: Days = Field(
        description="Days after which retention deletes events of a session; its last one stays. 0: never."
    )
    retention_state_events_days: Days = Field(
        description="Days after which retention deletes the record of a change of keyed state. 0: never."
    )
    retention_cold_days: Days = Field(
        description="Days after they were put away by `compact` after which retention deletes messages. 0: never."
    )
    retention_refusals_days: Days = Field(
        description="Days after which retention deletes the record of what was refused. 0: never."
    )
    retention_migrations_days: Days = Field(
        description="Days after which retention deletes the record of an accepted or undone migration. 0: never."
    )
    retention_outbox_days: Days = Field(
        description="Days after which retention deletes hints of sessions that are not active. 0: never."
    )
    retention_workers_days: Days = Field(
        description="Days after which retention deletes the row of a worker that died. 0: never."
    )
    retention_blobs_days: Days = Field(
        description="Days for which retention leaves a blob alone that nothing refers to. 0: for ever."
    )
    retention_temporary_days: Days = Field(
        description="Days for which retention leaves a temporary file alone. 0: for ever."
    )
    retention_cache: Switch = Field(
        description="Whether retention deletes cached results and values of state whose time is over."
    )
    retention_backups: Switch = Field(
        description="Whether retention deletes the backups that the settings backups_kept... do not keep."
    )
    prune_strategy: Literal["off", "lru", "lfu", "ttl", "size", "semantic"] = Field(
        description="How pruning on schedule, or without a strategy named, finds messages and sessions. off: it does"
        " nothing."
    )
    prune_sessions: Count = Field(
        description="Sessions that pruning by lru and lfu leaves at most, of a tenant. 0: any number."
    )
    prune_session_bytes: Count = Field(
        description="Bytes of sessions that pruning by size leaves at most, of a tenant. 0: any number."
    )
    prune_session_days: Days = Field(
        description="Days without use after which pruning by ttl deletes a session. 0: never."
    )
    prune_messages: Count = Field(
        description="Messages that pruning by lru and lfu leaves at most, of a tenant. 0: any number."
    )
    prune_message_bytes: Count = Field(
        description="Bytes of messages that pruning by size leaves at most, of a tenant. 0: any number."
    )
    prune_message_ttl: Annotated[float, Field(gt=0)] = Field(
        description="Seconds after which pruning by ttl deletes a message that has no ttl of its own."
    )
    prune_preserve_dm: Count = Field(description="Newest messages of a session of type dm that pruning leaves alone.")
    prune_preserve_group: Count = Field(
        description="Newest messages of a session of type group that pruning leaves alone."
    )
    prune_preserve_research: Count = Field(
        description="Newest messages of a session of type research that pruning leaves alone."
    )
    prune_similarity: Annotated[float, Field(gt=0, le=1)] = Field(
        description="How alike, 0 to 1, two texts are that pruning by semantic takes for the same."
    )
    prune_count_reads: Switch = Field(
        description="Whether reading histories is counted, so that lru and lfu go by use; else they go by what was"
        " written."
    )


def flat(layer: dict[str, Any]) -> dict[str, Any]:
    """The settings of a file, those in tables by their whole names."""
    for table in TABLES:
        found = layer.get(table)
        if isinstance(found, dict):
            del layer[table]
            layer |= {f"{table}_{name}": value for name, value in found.items()}
    return layer
