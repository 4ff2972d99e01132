"""What the simulated customer says when no model speaks for him, or when one has to be told the gist.

    the seller ...                      the customer ...
    says goodbye                        says goodbye; the talk is over
    answers an objection                softens, explains, or insists, by the quality of the answer
    tries to close                      agrees, asks, or raises an objection, by his attitude
    sums up                             says yes, adds what is missing, or refuses
    asks for a fact                     tells it (once), evades it once, or says that he said so
    asks what he thinks, or what it costs him    tells opinions, pains, consequences
    offers something                    reacts by attitude; coolly when it comes before a commitment
    says anything else                  reacts by attitude; loses patience when it goes nowhere for long

He knows the facts of his scenario and no others, says no line twice, and never coaches.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from coach_server.domain.customer import Customer, Memory, Tone
from coach_server.domain.methodology import Attitude, Epic, TipType
from coach_server.domain.persona import Objection, Scenario, Script, Story
from coach_server.domain.phrasebook import Phrasebook
from coach_server.domain.seller_turn import GOOD, SellerTurn
from coach_server.domain.speech import Speech
from coach_server.domain.turns import Quality, TechniqueUse

ENOUGH_FACTS = 3
READY = 0.5
PUSHES = 3
IMPATIENT_AT, LEAVES_AT = 4, 6
COLD = 0.06
DRILL_TURNS = range(3, 6)
RESISTS = ("twijfel", "bezwaar", "uitstel", "angst")
# Attitudes that have lines of their own, and what stands for those of other methods.
KINDS = {
    "positief": TipType.POSITIEF,
    "negatief": TipType.WAARSCHUWING,
    "vaag": TipType.OPEN,
    "ontwijkend": TipType.OPEN,
    "vraag": TipType.WEDERVRAAG,
    **dict.fromkeys(RESISTS, TipType.LOCK),
}
BUCKET_OF = {
    TipType.POSITIEF: "positief",
    TipType.WAARSCHUWING: "negatief",
    TipType.OPEN: "vaag",
    TipType.WEDERVRAAG: "vraag",
    TipType.LOCK: "bezwaar",
}
# What he tells to a question that names no topic.
MATTERS = ("process", "motivation", "expectations", "experience", "company", "volume")

Found: TypeAlias = "str | None"


@dataclass(frozen=True, slots=True)
class Moment:
    """Where the talk stands: the customer after he heard the seller's turn, the attitude drawn for his
    answer, and the turn itself. `script`: a drill."""

    scenario: Scenario
    customer: Customer
    attitude: str
    words: str
    uses: Sequence[TechniqueUse] = ()
    script: Script | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """`attitude`: the id of the one he really showed, which may differ from the one drawn. `agrees`: he said
    yes to a summary or a close. `ends`: he ends the talk. `memory`: his memory after saying it."""

    text: str
    attitude: str
    memory: Memory
    agrees: bool = False
    ends: bool = False


def open_talk(book: Phrasebook, moment: Moment, rng: random.Random) -> Answer:
    """The customer's first words, before the seller said anything."""
    return _Reply(book, moment, rng).opening()


def reply(book: Phrasebook, moment: Moment, rng: random.Random) -> Answer:
    """His answer to the seller's turn. Pure: the customer's own memory is not touched."""
    return _Reply(book, moment, rng).answer()


class _Reply:
    """One answer on its way: the memory it changes and what it shows."""

    def __init__(self, book: Phrasebook, moment: Moment, rng: random.Random) -> None:
        self.book = book
        self.moment = moment
        self.customer = moment.customer
        self.method = moment.customer.method
        self.rng = rng
        self.memory = moment.customer.memory.copy()
        self.story: Story = moment.scenario.story(book.language)
        self.tone = moment.customer.tone
        heard = book.hear(moment.words, self.story.cues)
        self.seller = SellerTurn(self.method, moment.customer.phase, moment.uses, heard)
        self.speech = Speech(book, self.memory, self.tone, rng)
        self.shown = moment.attitude
        self.agrees = False

    def opening(self) -> Answer:
        script = self.moment.script
        if script is not None and script.lines:
            self.memory.used.add("script#0")
            return self._done(script.lines[0])
        return self._done(self.speech.own("openings", self.story.openings) or self.speech.line("opening"))

    def answer(self) -> Answer:
        if self.memory.over:
            return self._done(self.speech.line("after"))
        self.memory.spoken += 1
        if self.moment.script is not None:
            return self._done(self._drill(self.moment.script))
        text = next(text for way in self._ways() if (text := way()) is not None)
        return self._done(self._followed(text))

    def _ways(self) -> tuple[Callable[[], Found], ...]:
        return (
            self._farewell,
            self._rude,
            self._objection_met,
            self._objection_raised,
            self._close,
            self._summary,
            self._consequence,
            self._fact,
            self._small_things,
            self._offer,
            self._opinion,
            self._patience,
            self._any_question,
            self._by_attitude,
        )

    def _done(self, text: str) -> Answer:
        return Answer(text, self.shown, self.memory, self.agrees, self.memory.over)

    # Ways to answer, the first that has something to say wins

    def _farewell(self) -> Found:
        if not self.seller.does("farewell") or self.memory.spoken < 2:
            return None
        self.memory.over = True
        warm = self.memory.won or self.memory.agreed or self.tone is Tone.WARM
        self._show("positief" if warm else "vaag")
        return self.speech.line("farewell_good" if warm else "farewell_cool")

    def _rude(self) -> Found:
        if not self.seller.does("rude"):
            return None
        self.memory.over = self.tone is Tone.RESERVED
        self._show("negatief")
        return self.speech.line("rude")

    def _objection_met(self) -> Found:
        objection = next((o for o in self.story.objections if o.id == self.memory.pending), None)
        if objection is None:
            return None
        quality = self.seller.against(self.memory.pending_as or self.moment.attitude)
        if quality in GOOD or (quality is Quality.BIJNA and self.memory.pushed):
            return self._softened(objection)
        self.memory.pushed += 1
        self.shown = self.memory.pending_as or self.shown
        if self.memory.pushed > PUSHES and self.tone is Tone.RESERVED:
            return self._leave()
        if self.memory.pushed > PUSHES:
            self.memory.pending = None
        return self.speech.own(f"insists:{objection.id}", (objection.insists,)) or self.speech.line("insists")

    def _softened(self, objection: Objection) -> str:
        self.memory.pending, self.memory.pushed = None, 0
        self._show("positief")
        softens = self.speech.own(f"softens:{objection.id}", (objection.softens,))
        return softens or self.speech.line("softened")

    def _objection_raised(self) -> Found:
        attitude = self.method.attitude(self.moment.attitude)
        if attitude is None or attitude.tip_type is not TipType.LOCK:
            return None
        if self.memory.won:
            self._show("positief")
            return None
        objection = self._objection(attitude)
        if objection is None:
            opinion = self.speech.own("opinions", self.story.opinions)
            return self.speech.led(self._key, opinion or self.speech.line("insists"))
        self.memory.pending, self.memory.pending_as, self.memory.pushed = objection.id, attitude.id, 0
        said = self.speech.own(f"says:{objection.id}", (objection.says,)) or self.speech.line("insists")
        return self.speech.led(objection.attitude, said)

    def _objection(self, attitude: Attitude) -> Objection | None:
        """One of the bank for this attitude that was not raised yet. The bank is about an offer, so it stays
        shut while he is being discovered."""
        if not self.seller.recommends:
            return None
        fresh = [o for o in self.story.objections if f"says:{o.id}#0" not in self.memory.used]
        pool = [o for o in fresh if o.attitude in self._kinds_of(attitude)]
        return self.rng.choice(pool) if pool else None

    def _kinds_of(self, attitude: Attitude) -> set[str]:
        """The objections that show an attitude: those of its key; of a key that only another method has, the
        plain ones, and after a trigger the ones that come with deciding."""
        if attitude.key in RESISTS:
            return {attitude.key}
        return set(RESISTS) - {"bezwaar"} if attitude.needs else {"bezwaar"}

    def _close(self) -> Found:
        if not self.seller.closes():
            return None
        if self.memory.won:
            self._show("positief")
            self.agrees = True
            return self.speech.line("positief")
        if self._kind is TipType.POSITIEF and self.customer.dynamics.commit >= READY:
            self.memory.won = self.agrees = True
            return self.speech.line("close_yes")
        if not self.memory.agreed:
            self._show("negatief")
            return self.speech.line("early", "close_cool")
        if self._kind is TipType.POSITIEF:
            self._show("vaag")
        return self.speech.line("close_cool")

    def _summary(self) -> Found:
        if not self.seller.sums_up():
            return None
        told = sum(self.memory.told.values())
        refuses = self._kind is TipType.WAARSCHUWING or self.seller.quality is Quality.GEMIST
        if told >= ENOUGH_FACTS and not refuses:
            self.memory.agreed = self.agrees = True
            self._show("positief")
            return self.speech.line("summary_yes")
        self._show("negatief")
        missing = self.speech.own("pains", self.story.pains) if told else None
        if missing is None:
            return self.speech.line("summary_no")
        return self.speech.line("summary_half").replace("{missing}", missing)

    def _fact(self) -> Found:
        known = [topic for topic in self.seller.heard.topics if topic in self.story.facts]
        if not known:
            return None
        self.memory.lost = 0
        topic = next((t for t in known if not self.memory.told.get(t)), known[0])
        if self._dodges(topic):
            return self._evasion()
        return self._told(topic)

    def _dodges(self, topic: str) -> bool:
        """A vague or evasive customer keeps a fact back once, not from somebody he likes."""
        if self._kind is not TipType.OPEN or topic in self.memory.dodged or self.memory.told.get(topic):
            return False
        if self.tone is Tone.WARM:
            self._show("positief")
            return False
        self.memory.dodged.add(topic)
        return True

    def _told(self, topic: str) -> str:
        lines, told = self.story.facts[topic], self.memory.told.get(topic, 0)
        if self._kind is TipType.OPEN:
            self._show("positief")
        if told >= len(lines):
            self.memory.lost += 1
            return self.speech.again(topic, lines[0])
        more = 2 if self.tone is Tone.WARM and told == 0 else 1
        said = " ".join(lines[told : told + more])
        self.memory.told[topic] = min(len(lines), told + more)
        if self._kind is TipType.WAARSCHUWING:
            return f"{said} {self.speech.line('misfit')}"
        return self.speech.acked(said) if told == 0 else said

    def _consequence(self) -> Found:
        """What hurts, and what follows from it."""
        if self.seller.uses_epic(Epic.IMPACT) or self.seller.does("impact"):
            return self._from("impacts", self.story.impacts, "impact")
        if self.seller.uses_epic(Epic.PROBE) or self.seller.does("probe"):
            return self._from("pains", self.story.pains, "pain")
        return None

    def _opinion(self) -> Found:
        if not self.seller.does("opinion"):
            return None
        return self._from("opinions", self.story.opinions, "opinion")

    def _from(self, name: str, lines: Sequence[str], bucket: str) -> str:
        self.memory.lost = 0
        if self._kind is TipType.OPEN and name not in self.memory.dodged and self.tone is not Tone.WARM:
            self.memory.dodged.add(name)
            return self._evasion()
        said = self.speech.own(name, lines)
        if said is not None:
            self.memory.told[name] = self.memory.told.get(name, 0) + 1
        if self._kind is TipType.OPEN:
            self._show("positief")
        return said or self.speech.line(bucket)

    def _offer(self) -> Found:
        if not self.seller.offers():
            return None
        if not self.memory.agreed and self.method.commitment_before is not None:
            self.memory.lost += 1
            if self._kind is TipType.POSITIEF:
                self._show("vaag")
            return self.speech.line("early", "offer_cool")
        self.memory.lost = 0
        if self._kind is TipType.POSITIEF:
            return self.speech.line("offer_good")
        return self.speech.line("offer_cool")

    def _small_things(self) -> Found:
        """Courtesies and remarks; where the seller offers something as well, that counts."""
        if self.seller.offers() and self.customer.phase != self.seller.first_phase:
            return self._reacts("priced", "negatief") if self.seller.does("priced") else None
        early = ("agenda", "smalltalk") if self.customer.phase == self.seller.first_phase else ()
        for move in (*early, "intro", "compliment"):
            if self.seller.does(move) and self._kind is not TipType.WAARSCHUWING:
                if (line := self._reacts(move, "positief")) is not None:
                    return line
        for move in ("competitor", "priced"):
            if self.seller.does(move) and (line := self._reacts(move, "negatief")) is not None:
                return line
        if self.seller.does("heard") and not self.seller.heard.asks:
            return self._reacts("heard", "positief")
        return self._greeting()

    def _greeting(self) -> Found:
        if not (self.seller.does("greeting") and self.memory.spoken == 1):
            return None
        self._show("positief")
        if any(key.startswith("openings#") for key in self.memory.used):
            return self.speech.free("smalltalk")
        return self.speech.own("openings", self.story.openings) or self.speech.free("opening")

    def _reacts(self, bucket: str, attitude: str) -> Found:
        """A line of the bucket, shown as that attitude unless he is about to ask something."""
        line = self.speech.free(bucket)
        if line is not None and self._kind is not TipType.WEDERVRAAG:
            self._show(attitude)
        return line

    def _patience(self) -> Found:
        """Talk that goes nowhere is noticed, then ended."""
        if self.moment.uses and self.seller.quality is not Quality.GEMIST:
            self.memory.lost = 0
            return None
        self.memory.lost += 1
        if self.memory.lost >= LEAVES_AT or self.customer.dynamics.rapport <= COLD:
            return self._leave()
        if self.memory.lost >= IMPATIENT_AT:
            self._show("negatief")
            return self.speech.line("impatient")
        return (
            self.speech.line("lost")
            if self.seller.heard.words < 3 and not self.seller.does("greeting")
            else None
        )

    def _leave(self) -> str:
        self.memory.over = True
        self._show("negatief")
        return self.speech.line("leaves")

    def _any_question(self) -> Found:
        """A question nobody foresaw: he tells something of his own that he has not told yet."""
        if not self.seller.heard.asks:
            return None
        match self._kind:
            case TipType.OPEN:
                return self._evasion()
            case TipType.WAARSCHUWING:
                return self.speech.own("opinions", self.story.opinions) or self.speech.line("negatief")
            case _:
                return self._something()

    def _something(self) -> str:
        """While he is still being discovered: what matters most of the untold; later: what he thinks."""
        untold = [t for t in MATTERS if t in self.story.facts and not self.memory.told.get(t)]
        if self.seller.heard.topics:
            return self.speech.line("unknown")
        if untold and not self.seller.recommends:
            return self._told(untold[0])
        return self.speech.own("opinions", self.story.opinions) or self.speech.line("opinion", "unknown")

    def _evasion(self) -> str:
        return self.speech.line("vaguely" if self._key == "vaag" else self._key, "ontwijkend", "vaguely")

    def _by_attitude(self) -> Found:
        return self.speech.line(self._key, "filler")

    # A drill

    def _drill(self, script: Script) -> str:
        self._show(script.attitude)
        quality = self.seller.against(self._id_of(script.attitude))
        good = quality in GOOD
        self.memory.met += good
        if self.memory.met >= 2 and self.memory.spoken >= DRILL_TURNS.start:
            return self._drill_ends("drill_done")
        if self.memory.spoken >= DRILL_TURNS.stop - 1:
            return self._drill_ends("drill_done" if good else "drill_over")
        if good:
            return self.speech.line("drill_soft")
        if quality is Quality.BIJNA:
            return self.speech.line("drill_half")
        return self.speech.own("script", script.lines) or self.speech.line("drill_hard")

    def _drill_ends(self, bucket: str) -> str:
        self.memory.over = True
        if bucket == "drill_done":
            self.agrees = True
            self._show("positief")
        return self.speech.line(bucket)

    # Attitudes

    @property
    def _kind(self) -> TipType | None:
        attitude = self.method.attitude(self.shown)
        return attitude.tip_type if attitude else None

    @property
    def _key(self) -> str:
        """The bucket of the attitude shown: its key, or for another method's the one of its kind."""
        attitude = self.method.attitude(self.shown)
        if attitude is None:
            return "vaag"
        return attitude.key if attitude.key in KINDS else BUCKET_OF[attitude.tip_type]

    def _id_of(self, name: str) -> str:
        """The id of an attitude in this method; of one it does not have, the first of its kind."""
        attitude = self.method.attitude(name)
        if attitude is not None:
            return attitude.id
        same = (a.id for a in self.method.attitudes if a.tip_type is KINDS.get(name))
        return next(same, self.moment.attitude)

    def _show(self, name: str) -> None:
        self.shown = self._id_of(name)

    # Lines

    def _followed(self, text: str) -> str:
        """With a question of his own when that is his attitude, and now and then when he is at ease."""
        if self.memory.over or self.agrees or text.rstrip().endswith("?"):
            return text
        asks = self._kind is TipType.WEDERVRAAG
        at_ease = self.tone is not Tone.RESERVED and self._kind is TipType.POSITIEF and self.memory.spoken > 2
        if not asks and not (at_ease and self.rng.random() < 0.15):
            return text
        question = self.speech.own("questions", self.story.questions)
        if question is None:
            if asks:
                self._show("positief")
            return text
        self._show("vraag")
        return f"{text} {question}"
