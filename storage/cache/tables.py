"""The tables of the result cache. Deleting all their rows loses no work: it is done again."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Double, Index, Integer, LargeBinary, SmallInteger, Table, Text, text

from ..tables import metadata

_TOGETHER: Any = {"sqlite_with_rowid": False}

#: One row a result: whose it is, what it is worth, its bytes.
cached_results = Table(
    "cached_results",
    metadata,
    Column("key", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("permissions", Text, nullable=False),  # JSON, sorted
    Column("tags", Text, nullable=False),  # JSON
    Column("content", Text, nullable=False),  # hash of the result
    Column("encoding", Text, nullable=False),  # how `body` was made from JSON: "", "zstd", "sealed", "zstd sealed"
    Column("size", Integer, nullable=False),  # of the JSON
    Column("stored", Integer, nullable=False),  # of `body`
    Column("generation", BigInteger, nullable=False),  # of the cache, when the run began
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("stale_until", Double, nullable=False),
    Column("used_at", Double, nullable=False),
    Column("accesses", Integer, nullable=False, server_default=text("0")),
    Column("seconds", Double, nullable=False),  # that the run took
    Column("cost", Double),
    Column("body", LargeBinary, nullable=False),  # the last: what lies behind a large value is slow to reach
    Index("cached_by_agent", "agent"),
    Index("cached_by_content", "content"),
    Index("cached_by_end", "stale_until", "stored"),  # to be counted and summed up without the rows
    Index("cached_by_use", "used_at"),
)

cached_tags = Table(
    "cached_tags",
    metadata,
    Column("tag", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Index("cached_tags_by_key", "key"),
    **_TOGETHER,
)

#: What was invalidated when. Of kind `generation` there is one row: the number of the last invalidation; of kind
#: `name` another: the name under which this database keeps copies in Redis.
cache_cutoffs = Table(
    "cache_cutoffs",
    metadata,
    # key, agent, content, tag, everything, of a tenant with @ and its name after it; generation; name
    Column("kind", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    **_TOGETHER,
)

#: What is being computed, and by which claim of which step; or, for a refresh, until when at most.
cache_flights = Table(
    "cache_flights",
    metadata,
    Column("key", Text, primary_key=True),
    Column("session_id", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("lease_until", Double, nullable=False),
    Column("shared", SmallInteger, nullable=False, server_default=text("1")),  # 0: its result is not for others
    **_TOGETHER,
)

#: Steps that wait for a flight.
cache_waiters = Table(
    "cache_waiters",
    metadata,
    Column("key", Text, primary_key=True),
    Column("session_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("queue", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    **_TOGETHER,
)

#: Sums over all processes.
cache_counters = Table(
    "cache_counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Double, nullable=False),
    **_TOGETHER,
)

#: What steps have saved by not being run, by their claim.
cache_savings = Table(
    "cache_savings",
    metadata,
    Column("session_id", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("seconds", Double, nullable=False),
    Column("cost", Double, nullable=False),
    **_TOGETHER,
)
