"""A drill: the customer's own words again, and three to five turns to do better.

two good answers, and three turns at least    he is convinced, and says so
five turns                                    he leaves it there, unless the last answer was good
else                                          he gives in a little, asks on, or insists with his own words
"""

from __future__ import annotations

from coach_server.domain.customer.mind import Memory
from coach_server.domain.customer.persona import Script
from coach_server.domain.customer.seller_turn import GOOD
from coach_server.domain.customer.speech import Speech
from coach_server.domain.method.turns import Quality

LEAST_TURNS, MOST_TURNS = 3, 5


def drill_line(script: Script, speech: Speech, memory: Memory, quality: Quality | None) -> tuple[str, bool]:
    """What he says to an answer of this quality against the script's attitude, and whether it convinced him.
    Ends the talk in the memory when the drill is over."""
    good = quality in GOOD
    memory.met += good
    if memory.met >= 2 and memory.spoken >= LEAST_TURNS or good and memory.spoken >= MOST_TURNS:
        memory.over = True
        return speech.line("drill_done"), True
    if memory.spoken >= MOST_TURNS:
        memory.over = True
        return speech.line("drill_over"), False
    if good:
        return speech.line("drill_soft"), False
    if quality is Quality.BIJNA:
        return speech.line("drill_half"), False
    return speech.own("script", script.lines) or speech.line("drill_hard"), False
