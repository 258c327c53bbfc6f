"""Words that documents use for one another, so that a question about a killed worker finds what is said of a crash."""

from __future__ import annotations

from .terms import stem

#: A word of another group member counts this much of the word that was asked for.
RELATED_WORTH = 0.7
_GROUPS = """kill crash die dead lost terminate sigkill oom
acknowledge ack acks
disconnect disconnected reconnect stale invalidate
complain complaint issue problem bug ask pain
error exception failure fail
delete remove erase
configuration setting option parameter config
argument parameter option
fast slow speed performance latency
protect guard prevent avoid
directory folder
retry redeliver requeue
resume continue
stop shutdown quit abort terminate
start launch begin
maximum max most
minimum min least
database db
authentication auth login
authorization permission
memory ram
copy duplicate
repeat periodic recurring
encrypt cipher encryption
licence license""".splitlines()


def _index() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for group in _GROUPS:
        members = group.split()
        for word in members:
            others = tuple(other for other in members if stem(other) != stem(word))
            found[stem(word)] = tuple(dict.fromkeys((*found.get(stem(word), ()), *others)))
    return found


_RELATED = _index()


def related(term: str) -> tuple[str, ...]:
    """The words that may stand for a term, without the term itself."""
    return _RELATED.get(stem(term), ())
