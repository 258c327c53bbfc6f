"""How well a sentence answers a question, by the question's words, their order and nearness, and its form."""

from __future__ import annotations

import re
from itertools import pairwise

from .related import RELATED_WORTH, related
from .terms import question_terms, stem, stems_of, words

#: What a term counts that only the heading above a sentence holds, or only the document's title.
_HEADING_WORTH, _TITLE_WORTH = 0.55, 0.3
_DEFINES = re.compile(r"\b(is|are|means|refers to|defines?|specif(?:y|ies)|controls?|determines?|describes?)\b", re.I)
_NAMES = re.compile(r"\w_\w|(?<!\w)--?[a-z]\w|`[^`]+`")
_CUES: list[tuple[re.Pattern[str], re.Pattern[str]]] = [
    (
        re.compile(r"\bwhy\b|\breason", re.I),
        re.compile(r"\bbecause\b|\bsince\b|\breason|\bso that\b|\bin order to\b", re.I),
    ),
    (re.compile(r"\bwhen\b", re.I), re.compile(r"\bwhen\b|\bif\b|\bafter\b|\bonce\b|\bbefore\b|\buntil\b", re.I)),
    (re.compile(r"\bhow (many|much|long|often|large|big)\b|\blimit|\bmaximum|\bsize\b", re.I), re.compile(r"\d")),
    (re.compile(r"\bdefault", re.I), re.compile(r"\bdefault", re.I)),
    (
        re.compile(r"\bhow (do|can|to|does|should|is|are)\b", re.I),
        re.compile(r"\bby\b|\bto\b|\busing\b|\buse\b|\bset\b|\bcall\b|\bwhen\b|\bif\b", re.I),
    ),
    (re.compile(r"^what (is|are)\b|\bmean", re.I), _DEFINES),
    (re.compile(r"\bhappen", re.I), re.compile(r"\bwill\b|\bif\b|\bwhen\b|\bthen\b|\bafter\b", re.I)),
    (re.compile(r"\b(settings?|options?|parameters?|flags?|variables?|arguments?)\b", re.I), _NAMES),
]


class Scorer:
    """Scores sentences against one question; `weights` says how telling each of its terms is."""

    def __init__(self, question: str, weights: dict[str, float]) -> None:
        terms = question_terms(question)
        self.weights = {term: weights.get(term, 1.0) for term in terms}
        self.whole = sum(self.weights.values()) or 1.0
        self._stems = {term: needed(term) for term in terms}
        self._related = {term: [needed(other) for other in related(term)] for term in terms}
        self._cues = [answer for ask, answer in _CUES if ask.search(question)]
        self._pairs = {(stem(a), stem(b)) for a, b in pairwise(words(question))}

    def worth(self, text: str) -> dict[str, float]:
        """The question's terms that a text holds, and how much each counts: 1, or less for a word that means it."""
        have = stems_of(text)
        lower = text.lower().split()
        found: dict[str, float] = {}
        for term, stems in self._stems.items():
            if stems <= have or term.lower() in lower:
                found[term] = 1.0
            elif any(other <= have for other in self._related[term]):
                found[term] = RELATED_WORTH
        return found

    def covered(self, text: str) -> set[str]:
        """The question's terms that a text holds, in whatever words."""
        return set(self.worth(text))

    def share(self, terms: set[str]) -> float:
        """The share (0..1) of the question's weight that some of its terms carry."""
        return sum(self.weights[term] for term in terms) / self.whole

    def score(self, text: str, heading: str, title: str) -> float:
        """How well a sentence under a heading in a document answers, about 0..2; 0 where it says nothing of it."""
        own = self.worth(text)
        above = {term: worth * _HEADING_WORTH for term, worth in self.worth(heading).items()}
        around = {term: worth * _TITLE_WORTH for term, worth in self.worth(title).items()}
        if not own and self.share(set(above)) < 0.5:
            return 0.0
        best = {term: max(part.get(term, 0.0) for part in (own, above, around)) for term in self.weights}
        base = sum(self.weights[term] * worth for term, worth in best.items()) / self.whole
        length = len(text.split())
        base *= 0.8 if length < 9 else 1.0 if length <= 36 else 0.85
        base *= 1.0 + 0.12 * sum(bool(cue.search(text)) for cue in self._cues)
        found = [stem(word) for word in words(text)]
        base *= 1.0 + 0.1 * len(self._pairs & set(pairwise(found)))
        base *= 1.0 + 0.25 * self._nearness(found, own)
        if _DEFINES.search(text) and any(stems <= set(found[:6]) for stems in self._stems.values()):
            base *= 1.1
        return round(base, 4)

    def _nearness(self, found: list[str], own: dict[str, float]) -> float:
        """0..1: how close together the terms stand that a sentence holds; 0 for fewer than two."""
        places = [max((found.index(s) for s in self._stems[term] if s in found), default=-1) for term in own]
        standing = [place for place in places if place >= 0]
        if len(standing) < 2:
            return 0.0
        return min(1.0, 2 * len(standing) / (max(standing) - min(standing) + 1))


def needed(term: str) -> frozenset[str]:
    """The stems that a text must hold to hold a term: all parts of an identifier or a compound."""
    return frozenset(stem(part) for part in re.split(r"[_.\-]+", term) if part)
