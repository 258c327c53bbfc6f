"""The words of a question that carry its meaning, and matching them in text."""

from __future__ import annotations

import math
import re
from functools import lru_cache

STOP_WORDS = frozenset(
    """a about above after again against all also am an and any are as at be because been before being below between
    both but by can cannot could did do does doing down during among each few for from further get gets give
    given had has have having he her here hers him his how i if in into is it its itself just let like may me
    mean might more most much must my no nor not now of off on once one only or other our out over own please
    same shall she should so some such tell than that the their them then there these they this those through to
    too under until up upon us use used uses using very was we were what when where whether which while who whom
    why will with within without would you your explain describe happen happens happened work works many""".split()
)
#: Verbs and nouns that a question needs for its grammar; rare in documents, they would outweigh its subject.
_LIGHT = frozenset(
    """understand support need want know recognise recognize tell affect mean look find read write make take call show
    list say allow handle thing way kind kinds type types best good difference different about
    default large big long small deal decide determine choose cope manage treat behave react respond come go put keep
    complain control cause matter relate involve provide setting settings option options occur consider""".split()
)
_LIGHT_WORTH = 0.33
_WORD = re.compile(r"[^\W_](?:[\w'’+#-]*[^\W_+#]|[+#]+)?(?:[._][^\W_][\w+-]*)*", re.UNICODE)
_JOINT = re.compile(r"[_.\-#+]+")
_ENDINGS = (
    "ations",
    "ation",
    "ingly",
    "edly",
    "ments",
    "ment",
    "ness",
    "ings",
    "ing",
    "ies",
    "ied",
    "ers",
    "ed",
    "es",
    "ly",
    "er",
    "s",
)


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """A light stem for comparing words: plural and verb endings fall away, nothing shorter than three letters stays."""
    word = word.lower().replace("’", "'").removesuffix("'s")
    if not word.isalpha() or len(word) < 4:
        return word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            if ending in ("ies", "ied"):
                return word + "i"
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] + "i" if word.endswith("y") and len(word) > 3 else word


def words(text: str) -> list[str]:
    """The words and identifiers of a text (`task_acks_late` and `3.11` are one each)."""
    return _WORD.findall(text)


def question_terms(question: str) -> list[str]:
    """The terms of a question, each once, in order: no stop words; all words where nothing else is left."""
    found = words(question)
    meaningful = [word for word in found if word.lower() not in STOP_WORDS and (len(word) > 1 or word.isupper())]
    by_stem: dict[str, str] = {}
    for word in meaningful or found:
        by_stem.setdefault(stem(word), word)
    return list(by_stem.values())


def prefixes(terms: list[str]) -> list[str]:
    """For each term lower case letters by which any form of it begins, to look for in raw text."""
    return [
        term.lower() if "_" in term or "." in term else term.lower()[: max(3, len(stem(term)) - 1)] for term in terms
    ]


def idf(holding: int, total: int) -> float:
    """How telling a term is that `holding` of `total` passages hold; always above zero (Robertson and Sparck Jones)."""
    return math.log(1 + (total - holding + 0.5) / (holding + 0.5))


def weigh(holding: dict[str, int], total: int) -> dict[str, float]:
    """Each term's weight in a question, by how many of `total` passages hold it: its idf, nothing where none does.

    Words of grammar weigh at most a third of what the others weigh on average, however rare they are.
    """
    weights = {term: idf(count, total) if count else 0.0 for term, count in holding.items()}
    telling = [weight for term, weight in weights.items() if weight and term.lower() not in _LIGHT]
    if telling:
        most = _LIGHT_WORTH * sum(telling) / len(telling)
        weights = {t: min(w, most) if t.lower() in _LIGHT else w for t, w in weights.items()}
    return {term: round(weight, 4) for term, weight in weights.items()}


@lru_cache(maxsize=20_000)
def stems_of(text: str) -> frozenset[str]:
    """The stems in a text; of an identifier its parts as well."""
    found: set[str] = set()
    for word in words(text):
        found.add(stem(word))
        if not word.isalnum():
            found.update(stem(part) for part in _JOINT.split(word) if part)
    return frozenset(found)
