"""The tables. Hot status rows are small and apart from the payloads that belong to them.

Times are seconds since 1970 in UTC (double precision) by the database's clock; JSON is text; flags are 0 or 1. All of
it can be read with any SQL client. A session's rows share the key prefix `session_id`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    text,
)

metadata = MetaData()
#: Small rows lie in their key's B-tree on SQLite. Not so rows with a payload: one over a quarter of a page would take
#: an overflow page of its own there, so 1 KB of result would cost 4 KB to write.
_TOGETHER: Any = {"sqlite_with_rowid": False}


def _session_key() -> Column[str]:
    return Column("session_id", Text, primary_key=True)


def _flag(name: str) -> Column[int]:
    return Column(name, SmallInteger, nullable=False, server_default=text("0"))


def _count(name: str) -> Column[int]:
    return Column(name, Integer, nullable=False, server_default=text("0"))


sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("key", Text),  # idempotency key of the enqueue
    Column("query", Text, nullable=False),
    Column("user", Text, nullable=False, server_default=""),
    Column("type", Text, nullable=False, server_default="research"),  # dm, group, research
    Column("title", Text, nullable=False, server_default=""),
    Column("agent", Text, nullable=False, server_default=""),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    _flag("pinned"),
    Column("status", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("plan_name", Text, nullable=False, server_default=""),
    Column("fingerprint", Text, nullable=False, server_default=""),
    Column("correlation_id", Text, nullable=False),
    Column("error", Text),
    _count("total_steps"),
    _count("open_steps"),  # not yet in a final state
    _count("failed_steps"),  # failed or dead
    _count("event_seq"),  # number of the last event
    _count("checkpoint_seq"),  # number of the last checkpoint
    _count("checkpoint_base"),  # number of the full checkpoint that the next change is added to
    _count("epoch_floor"),  # epochs of new steps start here: over all that were before a restore
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("completed_at", Double),
    Column("tenant", Text, nullable=False, server_default=""),
    # outputs and partial results that were recorded, as bytes of JSON, and how many of them as blobs
    Column("stored_bytes", BigInteger, nullable=False, server_default=text("0")),
    _count("stored_blobs"),
    Index("sessions_by_key", "tenant", "key", unique=True),
    Index("sessions_by_status", "tenant", "status", "id"),
    Index("sessions_by_user", "tenant", "user", "id"),
    **_TOGETHER,
)

#: What is read with a session but not written with each step: one JSON document per name.
session_documents = Table(
    "session_documents",
    metadata,
    _session_key(),
    Column("name", Text, primary_key=True),  # plan, preferences, metadata, notes, permissions, report, file_paths
    Column("body", Text, nullable=False),
)

session_tags = Table(
    "session_tags",
    metadata,
    Column("tag", Text, primary_key=True),
    _session_key(),
    Index("session_tags_by_session", "session_id"),
    **_TOGETHER,
)

steps = Table(
    "steps",
    metadata,
    _session_key(),
    Column("number", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),  # agent; each, plan: groups of steps; call, once: durable calls; message
    Column("agent", Text, nullable=False, server_default=""),
    # name of the outermost step of the plan that it belongs to
    Column("phase", Text, nullable=False, server_default=""),
    Column("member_of", Integer),  # number of the group, or of the step that makes the call
    Column("position", Integer, nullable=False, server_default=text("0")),  # place in the group, or of the call
    Column("status", Text, nullable=False),
    _flag("held"),  # the session is paused: ready, but not to be claimed
    _flag("doomed"),  # something that it waits for failed
    _flag("guarded"),  # has a condition or a fan-out to decide before it can be ready
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    _count("pending"),  # steps that it still waits for
    _count("attempts"),  # counted before the agent runs
    _count("failures"),  # attempts that the agent itself ended with an error
    _count("retries"),
    Column("backoff", Double, nullable=False, server_default=text("1")),
    Column("timeout", Double),
    _count("epoch"),  # fencing token: rises with every claim and every taking away
    Column("claim", Text),  # who runs it: process identity and a counter; also the claim's idempotency key
    Column("lease_until", Double),
    Column("run_at", Double, nullable=False, server_default=text("0")),
    Column("hinted_at", Double, nullable=False, server_default=text("0")),
    Column("progress", Double, nullable=False, server_default=text("0")),
    Column("task", Text),  # the line given with the progress
    Column("error", Text),
    Column("result_epoch", Integer),  # which recorded result counts; none: no result
    _flag("cached"),
    Column("started_at", Double),
    Column("finished_at", Double),
    # The condition always holds: it keeps PostgreSQL from finding a step by its number through this index.
    Index("steps_by_name", "session_id", "name", unique=True, postgresql_where=text("name IS NOT NULL")),
    Index(
        "steps_members",
        "session_id",
        "member_of",
        sqlite_where=text("member_of IS NOT NULL"),
        postgresql_where=text("member_of IS NOT NULL"),
    ),
    Index(
        "steps_ready",  # in the order in which they are claimed
        "session_id",
        text("priority DESC"),
        "number",
        sqlite_where=text("status = 'ready'"),
        postgresql_where=text("status = 'ready'"),
    ),
    Index(
        "steps_running",
        "lease_until",
        sqlite_where=text("status = 'running'"),
        postgresql_where=text("status = 'running'"),
    ),
    **_TOGETHER,
)

#: What a step is asked: the request with its references, the item of a fan-out, the condition. Read at the claim.
step_inputs = Table(
    "step_inputs",
    metadata,
    _session_key(),
    Column("number", Integer, primary_key=True),
    Column("body", Text, nullable=False),
)

edges = Table(
    "edges",
    metadata,
    _session_key(),
    Column("source", Integer, primary_key=True),
    Column("target", Integer, primary_key=True),
    **_TOGETHER,
)

#: Immutable. The key says "exactly once": one claim (epoch) of a step records at most one result.
results = Table(
    "results",
    metadata,
    _session_key(),
    Column("number", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("body", Text),  # JSON, or
    Column("blob", Text),  # the hash of a blob that holds it
    Column("size", Integer, nullable=False),
    Column("confidence", Double),
    Column("cost", Double),
    Column("maker", Text),  # a hash over the version of the agent, and what it was granted
    Column("added", Text),  # the steps that its agent added to the plan, as JSON
    Index("results_blobs", "blob", sqlite_where=text("blob IS NOT NULL"), postgresql_where=text("blob IS NOT NULL")),
)

blobs = Table(
    "blobs",
    metadata,
    Column("hash", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    **_TOGETHER,
)

agent_states = Table(
    "agent_states",
    metadata,
    _session_key(),
    Column("agent", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

partial_results = Table(
    "partial_results",
    metadata,
    _session_key(),
    Column("seq", Integer, primary_key=True),  # the number of its event
    Column("number", Integer, nullable=False),
    Column("agent", Text, nullable=False),
    Column("body", Text, nullable=False),
)

findings = Table(
    "findings",
    metadata,
    _session_key(),
    Column("id", Integer, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),  # the claim whose result it came with
    Column("agent", Text, nullable=False),
    Column("entity", Text, nullable=False),
    Column("attribute", Text, nullable=False),
    Column("subject", Text, nullable=False),  # entity and attribute, folded, to find what may disagree
    Column("value", Text, nullable=False),
    Column("confidence", Double, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("sole", SmallInteger, nullable=False, server_default=text("1")),  # no other value can hold beside it
    Index("findings_by_subject", "session_id", "subject"),
    Index("findings_by_step", "session_id", "number"),
)

conflicts = Table(
    "conflicts",
    metadata,
    _session_key(),
    Column("id", Integer, primary_key=True),
    Column("type", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("first", Integer, nullable=False),  # ids of findings
    Column("second", Integer, nullable=False),
    Column("severity", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    _flag("resolved"),
    Column("resolution", Text),
    Column("created_at", Double, nullable=False),
    **_TOGETHER,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _session_key(),
    Column("number", Integer, primary_key=True),
    Column("kind", Text, nullable=False),  # step, pause, manual, restore, final
    Column("label", Text, nullable=False, server_default=""),
    Column("seq", Integer, nullable=False),  # the last event that it covers
    Column("base", Integer, nullable=False),  # number of the full checkpoint that its chain of changes starts from
    Column("body", LargeBinary, nullable=False),
    Column("digest", LargeBinary, nullable=False),  # over this body and the digest before it
    _flag("marked"),
    Column("created_at", Double, nullable=False),
    **_TOGETHER,
)

#: Blobs that checkpoints refer to beside those of results: large values of keyed state.
checkpoint_blobs = Table(
    "checkpoint_blobs",
    metadata,
    _session_key(),
    Column("number", Integer, primary_key=True),
    Column("blob", Text, primary_key=True),
    Index("checkpoint_blobs_by_blob", "blob"),
    **_TOGETHER,
)

#: Keys of a session's own scope that have changed since its last checkpoint.
state_changes = Table("state_changes", metadata, _session_key(), Column("key", Text, primary_key=True), **_TOGETHER)

events = Table(
    "events",
    metadata,
    _session_key(),
    Column("seq", Integer, primary_key=True),  # 1, 2, 3 ... without a gap
    Column("at", Double, nullable=False),
    Column("type", Text, nullable=False),
    Column("component", Text, nullable=False),
    Column("step", Text),
    Column("data", Text),
    Column("correlation_id", Text, nullable=False),
    Column("parent", Text),
    # in the first event of a transaction: its random name, to tell later whether its COMMIT went in
    Column("turn", BigInteger),
    **_TOGETHER,
)

#: Hints to be published: written with the change that they tell of, deleted once the broker has taken them.
outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("session_id", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("hints", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("slots", Integer, nullable=False),
    Column("queues", Text, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("agents", Text, nullable=False, server_default="[]"),  # names of those that it knows, as JSON
)
