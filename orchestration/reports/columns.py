"""How wide the columns of a table should be, by the texts in them."""

from __future__ import annotations

from .inline import breakable, plain

#: Characters on a line of a table as wide as the page, and what the space between two columns takes of them.
_LINE, _GAP = 112, 3
_LEAST = 4
_HYPHENATED = 13  # longer words may be broken after a hyphen
_SAMPLE = 300  # rows that are looked at


def widths(columns: list[str], rows: list[list[str]]) -> list[int]:
    """Give each column's share of the width, in percent; the shares come to about 100.

    `columns` and `rows` hold inline Markdown and are of one width. Every column gets its longest word; what is left
    goes, bit by bit, to where it takes the most lines off the table.
    """
    cells = [
        [plain(cell) for cell in line] for line in [columns, *rows[: -1 : max(1, len(rows) // _SAMPLE)], *rows[-1:]]
    ]
    lengths = [[len(cell) for cell in column] for column in zip(*cells, strict=True)]
    own = [max(_LEAST, *(_longest_word(cell) + 1 for cell in column)) for column in zip(*cells, strict=True)]
    room = max(_LINE - _GAP * (len(own) - 1), sum(own))
    heights = [[-(-length // width) for length in column] for column, width in zip(lengths, own, strict=True)]
    while (left := room - sum(own)) > 0:
        gains = [_gain(heights, lengths, at, own[at], left) for at in range(len(own))]
        best = max(range(len(own)), key=lambda at: (gains[at][0], -at))
        if gains[best][0] <= 0:
            break
        own[best] += gains[best][1]
        heights[best] = [-(-length // own[best]) for length in lengths[best]]
    if left > 0:  # nothing wraps any more: what is left is shared out by what the columns hold
        whole = sum(own)
        own = [width + left * width // whole for width in own]
    total = sum(own)
    return [max(1, round(100 * width / total)) for width in own]


def _gain(heights: list[list[int]], lengths: list[list[int]], at: int, width: int, left: int) -> tuple[float, int]:
    """The lines that the table loses for each character by which a column is widened, at the best such number."""
    best = (0.0, 1)
    others = [max((h for place, h in enumerate(row) if place != at), default=1) for row in zip(*heights, strict=True)]
    now = sum(max(pair) for pair in zip(heights[at], others, strict=True))
    for more in (1, 2, 4, 8, 16, 32):
        if more > left:
            break
        then = sum(max(-(-n // (width + more)), other) for n, other in zip(lengths[at], others, strict=True))
        # A column whose own lines grow fewer is worth a little, even while another still sets the rows' heights.
        fewer = sum(heights[at]) - sum(-(-n // (width + more)) for n in lengths[at])
        best = max(best, ((now - then + 0.1 * fewer) / more, more))
    return best


def _longest_word(text: str) -> int:
    words = [part for word in text.split() for part in (word.split("-") if len(word) > _HYPHENATED else [word])]
    return max((len(part) for word in words for part in breakable(word)), default=0)
