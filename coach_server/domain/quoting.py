"""Whether words were really said. A model's quote counts only as far as it can be found in what was said."""

from __future__ import annotations

import re
import unicodedata

QUOTE_CHARS = 300
_WORD = re.compile(r"\w+")


class Said:
    """A text that was said, ready for quotes to be looked up in it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._words = list(_WORD.finditer(text))
        self._folded = _folded(text)

    def find(self, quote: str) -> str | None:
        """The part of the text that `quote` repeats word for word, as it was said; None when it does not.

        Case and punctuation do not matter. A single word counts only where nothing else was said: it proves
        too little otherwise.
        """
        wanted = _folded(quote)
        length = wanted.count(" ") - 1
        if length < 1 or (length == 1 and len(self._words) > 1) or wanted not in self._folded:
            return None
        first = self._folded.index(wanted)
        at = self._folded.count(" ", 0, first)
        start, end = self._words[at].start(), self._words[at + length - 1].end()
        return _cut(self._text[start : _with_mark(self._text, end)])


def said_in(quote: str, text: str) -> str | None:
    """As `Said.find`, for one quote."""
    return Said(text).find(quote)


def _with_mark(text: str, at: int) -> int:
    """The sentence mark after the last word belongs to the quote."""
    return at + 1 if text[at : at + 1] in ("?", "!", ".", "…") else at


def _cut(text: str) -> str:
    if len(text) <= QUOTE_CHARS:
        return text
    return text[: QUOTE_CHARS - 1].rsplit(" ", 1)[0] + "…"


def _folded(text: str) -> str:
    """Each word between spaces, ` how are you `; just a space without words."""
    words = (
        unicodedata.normalize("NFKC", found[0]).casefold().replace(" ", "") for found in _WORD.finditer(text)
    )
    return "".join(f" {word}" for word in words) + " "
