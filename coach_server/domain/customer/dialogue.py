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

from coach_server.domain.customer.mind import Customer, Memory, Tone
from coach_server.domain.customer.persona import Objection, Scenario, Script, Story
from coach_server.domain.customer.phrasebook import Phrasebook
from coach_server.domain.customer.seller_turn import GOOD, SellerTurn
from coach_server.domain.customer.showing import Showing, objections_of
from coach_server.domain.customer.speech import Speech
from coach_server.domain.method.methodology import Attitude, Epic, TipType
from coach_server.domain.method.turns import Quality, TechniqueUse
from coach_server.domain.practice.drill import drill_line
from coach_server.domain.wording import same_words

ENOUGH_FACTS = 3
READY = 0.5
PUSHES = 3
STEM = 6
IMPATIENT_AT, LEAVES_AT = 4, 6
COLD = 0.06
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


def stems(text: str) -> set[str]:
    """The beginnings of its longer words, roughly what it is about in any language here."""
    return {word[:STEM] for word in same_words(text).split() if len(word) >= STEM}


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
        self.showing = Showing(self.method, moment.attitude, moment.attitude)
        self.agrees = False
        self.was_evasive = self.memory.evaded

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
        self.memory.evaded = False
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
        return Answer(text, self.showing.id, self.memory, self.agrees, self.memory.over)

    # Ways to answer, the first that has something to say wins

    def _farewell(self) -> Found:
        if not self.seller.does("farewell") or self.memory.spoken < 2:
            return None
        self.memory.over = True
        warm = self.memory.won or (self.memory.pending is None and self.tone is not Tone.RESERVED)
        self.showing.show("positief" if warm else "vaag")
        return self.speech.line("farewell_good" if warm else "farewell_cool")

    def _rude(self) -> Found:
        if not self.seller.does("rude"):
            return None
        self.memory.over = self.tone is Tone.RESERVED
        self.showing.show("negatief")
        return self.speech.line("rude")

    def _objection_met(self) -> Found:
        objection = next((o for o in self.story.objections if o.id == self.memory.pending), None)
        if objection is None:
            return None
        quality = self.seller.against(self.memory.pending_as or self.moment.attitude)
        if quality in GOOD or (quality is Quality.BIJNA and self.memory.pushed):
            return self._softened(objection)
        self.memory.pushed += 1
        self.showing.id = self.memory.pending_as or self.showing.id
        if self.memory.pushed > PUSHES and self.tone is Tone.RESERVED:
            return self._leave()
        if self.memory.pushed > PUSHES:
            self.memory.pending = None
        return self.speech.own(f"insists:{objection.id}", (objection.insists,)) or self.speech.line("insists")

    def _softened(self, objection: Objection) -> str:
        self.memory.pending, self.memory.pushed = None, 0
        self.showing.show("positief")
        softens = self.speech.own(f"softens:{objection.id}", (objection.softens,))
        return softens or self.speech.line("softened")

    def _objection_raised(self) -> Found:
        attitude = self.method.attitude(self.moment.attitude)
        if attitude is None or attitude.tip_type is not TipType.LOCK:
            return None
        if self.memory.won:
            self.showing.show("positief")
            return None
        objection = self._objection(attitude)
        if objection is None:
            opinion = self.speech.own("opinions", self.story.opinions)
            return self.speech.led(self.showing.bucket, opinion or self.speech.line("insists"))
        self.memory.pending, self.memory.pending_as, self.memory.pushed = objection.id, attitude.id, 0
        said = self.speech.own(f"says:{objection.id}", (objection.says,)) or self.speech.line("insists")
        return self.speech.led(objection.attitude, said)

    def _objection(self, attitude: Attitude) -> Objection | None:
        """One of the bank for this attitude that was not raised yet. The bank is about an offer, so it stays
        shut while he is being discovered."""
        if not self.seller.recommends:
            return None
        fresh = [o for o in self.story.objections if f"says:{o.id}#0" not in self.memory.used]
        pool = [o for o in fresh if o.attitude in objections_of(attitude)]
        return self.rng.choice(pool) if pool else None

    def _close(self) -> Found:
        if not self.seller.closes():
            return None
        if self.memory.won:
            self.showing.show("positief")
            self.agrees = True
            return self.speech.line("positief")
        if self.showing.kind is TipType.POSITIEF and self.customer.dynamics.commit >= READY:
            self.memory.won = self.agrees = True
            return self.speech.line("close_yes")
        if not self.memory.agreed:
            self.showing.show("negatief")
            return self.speech.line("early", "close_cool")
        if self.showing.kind is TipType.POSITIEF:
            self.showing.show("vaag")
        return self.speech.line("close_cool")

    def _summary(self) -> Found:
        if not self.seller.sums_up():
            return None
        told = sum(self.memory.told.values())
        refuses = self.showing.kind is TipType.WAARSCHUWING or self.seller.quality is Quality.GEMIST
        if told >= ENOUGH_FACTS and not refuses:
            self.memory.agreed = self.agrees = True
            self.showing.show("positief")
            return self.speech.line("summary_yes")
        self.showing.show("negatief")
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
        if self.showing.kind is not TipType.OPEN or self.memory.told.get(topic):
            return False
        return self._holds_back(topic)

    def _holds_back(self, topic: str) -> bool:
        """Once for each topic, and never twice in a row."""
        if self.was_evasive or topic in self.memory.dodged or self.tone is Tone.WARM:
            self.showing.show("positief")
            return False
        self.memory.dodged.add(topic)
        return True

    def _told(self, topic: str) -> str:
        lines, told = self.story.facts[topic], self.memory.told.get(topic, 0)
        if self.showing.kind is TipType.OPEN:
            self.showing.show("positief")
        if told >= len(lines):
            self.memory.lost += 1
            return self.speech.again(topic, lines[0])
        more = 2 if self.tone is Tone.WARM and told == 0 else 1
        said = " ".join(lines[told : told + more])
        self.memory.told[topic] = min(len(lines), told + more)
        if self.showing.kind is TipType.WAARSCHUWING:
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
        if self.showing.kind in (TipType.OPEN, TipType.WAARSCHUWING) and self._holds_back(name):
            return self._evasion()
        said = self.speech.own(name, lines)
        if said is not None:
            self.memory.told[name] = self.memory.told.get(name, 0) + 1
        return said or self.speech.line(bucket)

    def _offer(self) -> Found:
        if not self.seller.offers():
            return None
        if not self.memory.agreed and self.method.commitment_before is not None:
            self.memory.lost += 1
            if self.showing.kind is TipType.POSITIEF:
                self.showing.show("vaag")
            return self.speech.line("early", "offer_cool")
        self.memory.lost = 0
        match self.showing.kind:
            case TipType.POSITIEF:
                return self.speech.line("offer_good")
            case TipType.WEDERVRAAG:
                return self.speech.own("questions", self.story.questions) or self.speech.line("vraag")
            case _:
                return self.speech.line("offer_cool")

    def _small_things(self) -> Found:
        """Courtesies and remarks; where the seller offers something as well, that counts."""
        if self.seller.offers() and self.customer.phase != self.seller.first_phase:
            return self._reacts("priced", "negatief") if self.seller.does("priced") else None
        early = ("agenda", "smalltalk") if self.customer.phase == self.seller.first_phase else ()
        for move in (*early, "intro", "compliment"):
            if self.seller.does(move) and self.showing.kind is not TipType.WAARSCHUWING:
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
        self.showing.show("positief")
        if any(key.startswith("openings#") for key in self.memory.used):
            return self.speech.free("smalltalk")
        return self.speech.own("openings", self.story.openings) or self.speech.free("opening")

    def _reacts(self, bucket: str, attitude: str) -> Found:
        """A line of the bucket, shown as that attitude unless he is about to ask something."""
        line = self.speech.free(bucket)
        if line is not None and self.showing.kind is not TipType.WEDERVRAAG:
            self.showing.show(attitude)
        return line

    def _patience(self) -> Found:
        """Talk that goes nowhere is noticed, then ended."""
        if self.moment.uses and self.seller.quality is not Quality.GEMIST:
            self.memory.lost = 0
            return None
        if self.seller.heard.asks and self.seller.heard.words > 2:
            return None
        self.memory.lost += 1
        if self.memory.lost >= LEAVES_AT or self.customer.dynamics.rapport <= COLD:
            return self._leave()
        if self.memory.lost >= IMPATIENT_AT:
            self.showing.show("negatief")
            return self.speech.line("impatient")
        puzzled = self.seller.heard.words < 3 and not self.seller.does("greeting")
        return self.speech.line("lost") if puzzled else None

    def _leave(self) -> str:
        self.memory.over = True
        self.showing.show("negatief")
        return self.speech.line("leaves")

    def _any_question(self) -> Found:
        """A question nobody foresaw: he tells something of his own that he has not told yet."""
        if not self.seller.heard.asks:
            return None
        match self.showing.kind:
            case TipType.OPEN if self._holds_back("anything"):
                return self._evasion()
            case TipType.WAARSCHUWING:
                return self.speech.own("opinions", self.story.opinions) or self.speech.line("negatief")
            case _:
                return self._something()

    def _something(self) -> str:
        """What shares words with the question; else, while he is being discovered, what matters most of the
        untold; later, what he thinks."""
        if (topic := self._closest()) is not None:
            return self._told(topic)
        untold = [t for t in MATTERS if t in self.story.facts and not self.memory.told.get(t)]
        if self.seller.heard.topics:
            return self.speech.line("unknown")
        if untold and not self.seller.recommends:
            return self._told(untold[0])
        return self.speech.own("opinions", self.story.opinions) or self.speech.line("opinion", "unknown")

    def _closest(self) -> str | None:
        """The topic whose next line shares the most words with the question, None when none does."""
        asked = stems(self.moment.words)
        lines = {t: told[self.memory.told.get(t, 0) :] for t, told in self.story.facts.items()}
        shared = {t: len(asked & stems(rest[0])) for t, rest in lines.items() if rest}
        best = max(shared, key=lambda topic: shared[topic], default=None)
        return best if best is not None and shared[best] else None

    def _evasion(self) -> str:
        self.memory.evaded = True
        bucket = {"vaag": "vaguely", "negatief": "declines"}.get(self.showing.bucket, self.showing.bucket)
        return self.speech.line(bucket, "ontwijkend", "vaguely")

    def _by_attitude(self) -> Found:
        return self.speech.line(self.showing.bucket, "filler")

    def _drill(self, script: Script) -> str:
        self.showing.show(script.attitude)
        quality = self.seller.against(self.showing.id)
        text, self.agrees = drill_line(script, self.speech, self.memory, quality)
        if self.agrees:
            self.showing.show("positief")
        return text

    def _followed(self, text: str) -> str:
        """With a question of his own when that is his attitude, and now and then when he is at ease."""
        if self.memory.over or self.agrees or text.rstrip().endswith("?"):
            return text
        asks = self.showing.kind is TipType.WEDERVRAAG
        welcomes = self.showing.kind is TipType.POSITIEF and self.showing.id == self.moment.attitude
        at_ease = welcomes and self.tone is not Tone.RESERVED and self.memory.spoken > 2
        if not asks and not (at_ease and self.rng.random() < 0.15):
            return text
        question = self.speech.own("questions", self.story.questions)
        if question is None and asks:
            question = self.speech.free("vraag")
        if question is None:
            self.showing.show("positief")
            return text
        self.showing.show("vraag")
        return f"{text} {question}"
