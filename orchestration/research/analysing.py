"""Reading one document for a question: the sentences that answer it best, scored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from .scoring import Scorer
from .sentences import Sentence, is_plain, row_sentences, sentences_of, worth_quoting

#: How many sentences of a document are kept.
NOTES_PER_DOCUMENT = 12
#: What a statement in a comment counts: comments are written for those who change the code, not for those who ask.
_COMMENT_WORTH = 0.7
#: What the description of a parameter, a row of a table, and one that had to be cut count.
_PARAMETER_WORTH, _ROW_WORTH, _CUT_WORTH = 0.85, 0.9, 0.7
_WHOLE_COMMENT = 320
#: The share of the question that a plain sentence has to cover, where a document holds none that is worth quoting.
_WHOLE_QUESTION = 0.9


def notes_of(document: dict[str, Any], scorer: Scorer) -> list[dict[str, Any]]:
    """The best sentences of a located document, best first.

    A note is `{text, line_start, line_end, page, heading, score, covered, path, title}`. A sentence that leans on the
    one before it ("This ...") is taken with it, or scores less where that one cannot be quoted.
    """
    notes = _notes(document, scorer, worth_quoting) or [
        note for note in _notes(document, scorer, _is_plain) if scorer.share(set(note["covered"])) >= _WHOLE_QUESTION
    ]
    notes.sort(key=lambda note: (-note["score"], note["page"] or 0, note["line_start"]))
    kept: list[dict[str, Any]] = []
    for note in notes:
        if all(not _overlap(note, other) for other in kept):
            kept.append(note)
        if len(kept) == NOTES_PER_DOCUMENT:
            break
    return kept


def _is_plain(text: str, kind: str) -> bool:
    return kind == "prose" and is_plain(text)


def _notes(document: dict[str, Any], scorer: Scorer, is_worth: Callable[[str, str], bool]) -> list[dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    for passage in document["passages"]:
        heading = passage["heading"] if passage["heading"] != document["title"] else ""
        for block in passage["blocks"]:
            notes += _block_notes(block, heading, passage, document, scorer, is_worth)
    return notes


def _block_notes(
    block: dict[str, Any],
    heading: str,
    passage: dict[str, Any],
    document: dict[str, Any],
    scorer: Scorer,
    is_worth: Callable[[str, str], bool],
) -> list[dict[str, Any]]:
    kind = block["kind"]
    notes = []
    for text, sentence in _statements(block, passage, is_worth):
        above = f"{heading} {block['label']}" if kind == "row" else heading
        score = scorer.score(sentence.own or text, above, document["title"]) * _worth(text, kind)
        if sentence.leans and text == sentence.text:
            score *= 0.4
        if score <= 0:
            continue
        notes.append(
            {
                "text": text if re.search(r"[.!?…][\"')”`]*$", text) else f"{text}.",
                "line_start": sentence.line_start,
                "line_end": sentence.line_end,
                "page": passage["page"],
                "heading": heading,
                "score": round(score, 4),
                "covered": sorted(scorer.covered(f"{sentence.own or text} {heading}")),
                "kind": kind,
                "path": document["path"],
                "title": document["title"],
            }
        )
    return notes


def _worth(text: str, kind: str) -> float:
    if kind == "row":
        return _CUT_WORTH if text.endswith("…") else _ROW_WORTH
    if kind == "comment":
        return _COMMENT_WORTH
    return _PARAMETER_WORTH if re.match(r"`[*\w]+(=[^`]*)?`: ", text) else 1.0


def _statements(
    block: dict[str, Any], passage: dict[str, Any], is_worth: Callable[[str, str], bool]
) -> Iterator[tuple[str, Sentence]]:
    """What a block says that can be quoted: each sentence, with the one before where it leans on that one."""
    kind, lines = block["kind"], [(number, line) for number, line in block["lines"]]
    if kind == "row":
        yield from ((sentence.text, sentence) for sentence in row_sentences(lines, block["label"]))
        return
    said = sentences_of(lines, kind)
    setting = next((other for other in passage["blocks"] if other["kind"] == "setting"), None)
    whole = " ".join(sentence.text for sentence in said)
    if setting is not None and kind == "prose" and 0 < len(whole) <= _WHOLE_COMMENT:
        # The comment above a setting is short and means one thing: it is said whole, with the value.
        text = f"{whole if whole[-1] in '.!?' else f'{whole}.'} Here: `{setting['label']}`."
        yield text, Sentence(text, said[0].line_start, setting["lines"][-1][0], False)
        return
    for index, sentence in enumerate(said):
        if is_worth(sentence.text, kind):
            text, first = _with_the_one_before(said, index, kind)
            yield text, replace(sentence, line_start=first)


def _with_the_one_before(said: list[Sentence], index: int, kind: str) -> tuple[str, int]:
    """A sentence, together with the one before where it leans on that one and the two can be quoted; its first line."""
    sentence, before = said[index], said[index - 1] if index else None
    if not sentence.leans or before is None or before.leans or len(before.text) + len(sentence.text) >= 420:
        return sentence.text, sentence.line_start
    if not worth_quoting(before.text, kind):
        return sentence.text, sentence.line_start
    return f"{before.text} {sentence.text}", before.line_start


def _overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    same_place = (
        one["page"] == other["page"]
        and one["line_start"] <= other["line_end"]
        and other["line_start"] <= one["line_end"]
    )
    if same_place and one["kind"] == other["kind"] == "row":
        return True
    return same_place and (one["text"] in other["text"] or other["text"] in one["text"])
