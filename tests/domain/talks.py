"""Talks for the tests of scoring: short to write, with words, times and techniques."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Quality, TechniqueUse, Turn
from coach_server.domain.transcript import Speaker
from coach_server.services.method.methodologies import Methodologies

STARTED_AT = 1_700_000_000.0


@cache
def method(name: str = "hugo") -> Methodology:
    return Methodologies.load().get(name)


def seller(
    text: str, phase: int, *uses: tuple[str, str], question: bool | None = None, themes: Sequence[str] = ()
) -> Turn:
    """`uses`: pairs of technique and quality. A question by its mark, unless told."""
    return Turn(
        0,
        Speaker.AGENT,
        text,
        0.0,
        phase,
        tuple(TechniqueUse(id, Quality(quality), text) for id, quality in uses),
        themes=tuple(themes),
        is_question=text.endswith("?") if question is None else question,
    )


def customer(text: str, phase: int, attitude: str | None = None, *, yes: bool = False) -> Turn:
    return Turn(0, Speaker.CUSTOMER, text, 0.0, phase, attitude=attitude, is_yes=yes)


def talk(*turns: Turn) -> list[Turn]:
    """Numbered from 1, ten seconds apart."""
    return [
        Turn(
            number,
            turn.speaker,
            turn.text,
            STARTED_AT + 10 * number,
            turn.phase,
            turn.uses,
            turn.attitude,
            turn.attitude_quote,
            turn.themes,
            turn.is_question,
            turn.is_yes,
        )
        for number, turn in enumerate(turns, start=1)
    ]


def opening(quality: str = "perfect") -> list[Turn]:
    """A practice of the opening alone, all four steps."""
    return talk(
        seller("Fijn dat u tijd maakt, wat een mooie zaak.", 1, ("1.1", quality)),
        customer("Dank u, we zijn net verbouwd.", 1, "H1"),
        seller("Zullen we eerst kijken waar u staat en daarna beslissen?", 1, ("1.2", quality)),
        customer("Ja, dat is goed.", 1, "H1", yes=True),
        seller("Wij helpen veertig bakkers in de streek, zoals Peeters.", 1, ("1.3", quality)),
        customer("Die ken ik wel.", 1, "H1"),
        seller("Vertelt u eens, hoe loopt het bij u?", 1, ("1.4", quality)),
        customer("Druk, vooral in het weekend.", 1, "H1"),
    )


def hurried() -> list[Turn]:
    """From one question to the offer, past an objection, to a postponement that is met."""
    return talk(
        seller("Fijn dat u tijd maakt.", 1, ("1.1", "goed")),
        customer("Graag gedaan.", 1, "H1"),
        seller("Hoeveel mensen werken er in het magazijn?", 2, ("2.1.1", "goed"), themes=("ervaring",)),
        customer("Twaalf, en de planning loopt elke week wel ergens mis.", 2, "H1"),
        seller("Wij hebben een systeem dat alles automatisch plant.", 3, ("3.2", "bijna")),
        customer("Dat is wel veel te duur voor ons.", 3, "H7"),
        seller("Ons systeem is sneller dan de rest.", 3, ("3.3", "goed")),
        customer("Ik moet erover nadenken.", 4, "H8"),
        seller("Wat moet er voor u nog duidelijk worden?", 4, ("4.2.3", "goed")),
        customer("Vooral de prijs.", 4, "H7"),
    )


def whole() -> list[Turn]:
    """A whole talk, conducted by the book."""
    return talk(
        *opening(),
        seller("Hoeveel broden bakt u per dag?", 2, ("2.1.1", "perfect"), themes=("ervaring",)),
        customer("Achthonderd, en met de hand: we verliezen uren aan de planning.", 2, "H1"),
        seller(
            "Wat zou die planning voor u moeten opleveren?",
            2,
            ("2.1.2", "perfect"),
            themes=("verwachtingen",),
        ),
        customer("Rust in het weekend.", 2, "H1"),
        seller("Stel dat die planning zo blijft, hoe ziet uw weekend er dan uit?", 2, ("2.1.7", "perfect")),
        customer("Dan werk ik elke zondag, dat kost me mijn gezin.", 2, "H1"),
        seller(
            "Wat betekent elke zondag werken voor uw gezin?", 2, ("2.3", "perfect"), themes=("motivatie",)
        ),
        customer("Dat hou ik geen jaar meer vol.", 2, "H1"),
        seller(
            "U wilt rust winnen en vermijden dat u elke zondag werkt, klopt dat?", 2, ("2.1.8", "perfect")
        ),
        customer("Ja, precies.", 2, "H1", yes=True),
        seller("Ik begrijp dat die zondagen zwaar zijn.", 3, ("3.1", "perfect")),
        customer("Dat zijn ze zeker.", 3, "H1"),
        seller("Daarom plant ons programma de week voor u.", 3, ("3.2", "perfect"), ("3.3", "perfect")),
        customer("En dan?", 3, "H1"),
        seller("Voor u betekent dat: zondag thuis bij uw gezin.", 3, ("3.4", "perfect")),
        customer("Dat klinkt mooi.", 3, "H1"),
        seller("Wat vindt u daarvan?", 3, ("3.5", "perfect")),
        customer("Goed, maar het is te duur.", 3, "H7"),
        seller("Te duur waarmee vergeleken?", 4, ("4.2.4", "perfect")),
        customer("Met wat ik nu betaal.", 4, "H1"),
        seller("Als dat klopt, beginnen we dan maandag?", 4, ("4.1", "perfect")),
        customer("Ja, maandag is goed.", 4, "H1", yes=True),
    )
