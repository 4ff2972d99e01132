"""Words that come from outside, made fit to show, store and send on."""

from __future__ import annotations

import re
import unicodedata

# Controls, lone surrogates, zero-width and direction-changing characters. The joiners of Hebrew, Arabic and
# emoji stay (200c-200f).
_UNFIT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
_TAG = re.compile(r"</?[A-Za-z!?][^<>]{0,500}>?")
_SENTENCE_END = re.compile(r"[.!?…](?=\s|$)")
_WORD = re.compile(r"\w+")


def one_line(text: str) -> str:
    """`text` without unfit characters, each run of white space a single space."""
    return " ".join(_UNFIT.sub("", text).split())


def clip(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis where something was left out at the end."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def clip_start(text: str, limit: int) -> str:
    """At most `limit` characters, an ellipsis where something was left out at the start."""
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :].lstrip()


def whole_sentences(text: str, limit: int) -> str:
    """The sentences of `text` that fit into `limit` characters, empty when the first one does not."""
    if len(text) <= limit:
        return text
    ends = [found.end() for found in _SENTENCE_END.finditer(text, 0, limit + 1) if found.end() <= limit]
    return text[: ends[-1]] if ends else ""


def has_markup(text: str) -> bool:
    return _TAG.search(text) is not None


def same_words(text: str) -> str:
    """What is compared when two texts should count as the same: letters and digits only, case folded."""
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def share_of_script(text: str, script: str) -> float:
    """The share of letters of `text` in a script such as LATIN or HEBREW, 0..1; 1 without letters."""
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return 1.0
    return sum(unicodedata.name(c, "").startswith(script) for c in letters) / len(letters)
