"""What the director tells the customer in the middle of a talk, and how it stays between the two of them.

The block goes to the model as a system item, between marks that carry a random tag of the session. A trainee
who says the words of such a block is only a trainee: the role differs, and the tag cannot be guessed. What
looks like a mark is taken out of everything that is heard, typed or shown (contract simulation.md §8.7).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

TAG_BITS = 64
_ANY_MARK = re.compile(r"\[\[\s*/?\s*state\b[^\]\n]{0,80}\]\]?|\[\[\s*/?\s*state\b", re.IGNORECASE)
_SPACES = re.compile(r"[ \t]{2,}")


def new_tag(rng: random.Random) -> str:
    """A session's tag; give it a `random.SystemRandom`. Keep it with the session: a resumed one needs it."""
    return f"{rng.getrandbits(TAG_BITS):016x}"


class Steering:
    """Blocks for one session, and texts without them."""

    def __init__(self, tag: str) -> None:
        self.tag = tag
        name = re.escape(tag)
        self._block = re.compile(
            rf"\[\[\s*state\s+{name}\s*\]\].*?(?:\[\[\s*/\s*state\s+{name}\s*\]\]|\Z)",
            re.IGNORECASE | re.DOTALL,
        )
        self._word = re.compile(rf"/?\s*{name}", re.IGNORECASE)

    def block(self, lines: Sequence[str]) -> str:
        """The lines between the session's marks; a line cannot close them. Lines are the director's own
        words in the session's language, never the trainee's."""
        body = "\n".join(text for line in lines if (text := self.clean(line)))
        return f"[[state {self.tag}]]\n{body}\n[[/state {self.tag}]]"

    def clean(self, text: str) -> str:
        """Text without blocks, marks and the tag; what stands between the session's marks goes too."""
        if "[[" not in text and self.tag not in text.casefold():
            return text
        before = None
        while text != before:  # what is left when a mark is taken out may be one
            before = text
            text = self._word.sub(" ", _ANY_MARK.sub(" ", self._block.sub(" ", text)))
        return _SPACES.sub(" ", text).strip()
