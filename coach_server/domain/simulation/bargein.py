"""Whether somebody who speaks while the customer is speaking wants the floor.

    QUIET    speech starts while audio plays           -> HOLDING (nothing more is sent)
    HOLDING  still speaking after `long_ms`            -> interrupt
             stopped before; its words are all nods    -> resume
             stopped before; other words               -> interrupt
             stopped before; no words within `words_s` -> resume (a cough, a chair); late ones still count

A model's voice detection says that speech ended only after half a second of silence, so a nod of 300 ms is
reported about 800 ms after it began: `long_ms` lies behind that. Audio is held from the first moment, so that
a real interruption is met with silence at once; the price is a short pause after a nod.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from enum import StrEnum

MOST_NODS = 3
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Decision(StrEnum):
    """What to do with the audio now."""

    NOTHING = "nothing"
    HOLD = "hold"
    INTERRUPT = "interrupt"
    RESUME = "resume"


def is_backchannel(text: str, nods: Set[str]) -> bool:
    """Whether these words only say "I am listening". `nods`: casefolded words of the language; a spoken
    `uh-huh` is two of them or one, as the transcriber likes it."""
    words = _WORD.findall(text.casefold())
    if not words or len(words) > MOST_NODS:
        return False
    return all(word in nods for word in words) or any(joint.join(words) in nods for joint in ("", " ", "-"))


def heard_part(text: str, heard_ms: float, total_ms: float) -> str:
    """What was said of `text` when its audio of `total_ms` stopped after `heard_ms`: whole words, in
    proportion to the letters, then an ellipsis; empty when nothing was heard."""
    if total_ms <= 0 or heard_ms >= total_ms:
        return text
    reach = len(text) * max(heard_ms, 0) / total_ms
    words, used = [], 0
    for word in text.split():
        used += len(word) + 1
        if used > reach + 1:
            break
        words.append(word)
    return " ".join(words) + "…" if words else ""


@dataclass(slots=True)
class BargeIn:
    """One talk's decision under way. `nods` as above; times in seconds of any clock that does not go back."""

    nods: Set[str] = frozenset()
    long_ms: int = 1000
    words_s: float = 1.5
    _item: str | None = None
    _late: str | None = None
    _due: float | None = None
    _stopped: bool = False

    @property
    def deadline(self) -> float | None:
        return self._due

    @property
    def item_id(self) -> str | None:
        """The turn that is being judged."""
        return self._item

    def started(self, item_id: str, playing: bool, now: float) -> Decision:
        """Somebody speaks. While a turn is judged the next one takes its place (`ja … ja`); the words of
        the former may still decide."""
        if self._item is None and not playing:
            return Decision.NOTHING
        held = self._item is not None
        self._late = self._item
        self._item, self._stopped = item_id, False
        self._due = now + self.long_ms / 1000
        return Decision.NOTHING if held else Decision.HOLD

    def stopped(self, item_id: str, now: float) -> None:
        if item_id == self._item and not self._stopped:
            self._stopped = True
            self._due = now + self.words_s

    def heard(self, item_id: str, text: str) -> Decision:
        """The words of a turn, as soon as they are known; empty: there were none. They count although the
        audio went on meanwhile because they were late."""
        if item_id not in (self._item, self._late):
            return Decision.NOTHING
        if text.strip() and not is_backchannel(text, self.nods):
            return self._settle(Decision.INTERRUPT)
        if item_id != self._item and self._item is not None:
            return Decision.NOTHING
        return self._settle(Decision.RESUME)

    def tick(self, now: float) -> Decision:
        if self._due is None or now < self._due:
            return Decision.NOTHING
        if not self._stopped:
            return self._settle(Decision.INTERRUPT)
        late = self._item
        self._settle(Decision.RESUME)
        self._late = late
        return Decision.RESUME

    def drop(self) -> None:
        """Forget the open decision: there is nothing left to interrupt."""
        self._settle(Decision.NOTHING)

    def _settle(self, decision: Decision) -> Decision:
        self._item, self._late, self._due, self._stopped = None, None, None, False
        return decision
