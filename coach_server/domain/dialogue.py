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
from coach_server.domain.phrasebook import Heard, Phrasebook
from coach_server.domain.turns import RANK, Quality, TechniqueUse, best

GOOD = (Quality.PERFECT, Quality.GOED)
ENOUGH_FACTS = 3
READY = 0.5
PUSHES = 3
IMPATIENT_AT, LEAVES_AT = 4, 6
COLD = 0.06
DRILL_TURNS = range(3, 6)
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
        self.heard: Heard = book.hear(moment.words, self.story.cues)
        self.shown = moment.attitude
        self.agrees = False

    def opening(self) -> Answer:
        script = self.moment.script
        if script and script.lines:
            self.memory.used.add("script#0")
            return self._done(script.lines[0])
        return self._done(self._own("openings", self.story.openings) or self._line("opening"))

    def answer(self) -> Answer:
        if self.memory.over:
            return self._done(self._line("after"))
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

    # What the seller did

    def _does(self, move: str) -> bool:
        return move in self.heard.moves

    def _uses_epic(self, epic: Epic) -> bool:
        return any(self.method.epic_of(use.id) is epic for use in self.moment.uses)

    def _uses_any(self, ids: Sequence[str]) -> bool:
        wanted = {found.id for name in ids if (found := self.method.find(name)) is not None}
        return any((t := self.method.find(use.id)) is not None and t.id in wanted for use in self.moment.uses)

    def _closes(self) -> bool:
        triggers = [name for attitude in self.method.attitudes for name in attitude.needs]
        return self._uses_any(triggers) or (self._does("close") and self.customer.phase == self._last_phase)

    def _offers(self) -> bool:
        phase = self.method.commitment_before
        used = any((t := self.method.find(u.id)) is not None and t.phase == phase for u in self.moment.uses)
        return used or (self._does("offer") and not self._does("agenda"))

    def _sums_up(self) -> bool:
        commits = self._uses_epic(Epic.COMMIT) or self._uses_any(self.method.commitment)
        return commits or self._does("summary")

    @property
    def _first_phase(self) -> int:
        return min(phase.id for phase in self.method.flow or self.method.phases)

    @property
    def _last_phase(self) -> int:
        return max(phase.id for phase in self.method.flow or self.method.phases)

    @property
    def _quality(self) -> Quality | None:
        top = best(self.moment.uses)
        return top.quality if top else None

    def _quality_against(self, attitude: str) -> Quality | None:
        """How well the turn meets an attitude: techniques made for it count fully, others a step less."""
        phase = self.customer.phase
        made_for = [use for use in self.moment.uses if self.method.meets(use.id, attitude, phase)]
        if (top := best(made_for)) is not None:
            return top.quality
        if self._quality in GOOD or (self._quality is None and self._does("heard") and self.heard.asks):
            return Quality.BIJNA
        return self._quality

    # Ways to answer, the first that has something to say wins

    def _farewell(self) -> Found:
        if not self._does("farewell"):
            return None
        self.memory.over = True
        warm = self.memory.won or self.memory.agreed or self.tone is Tone.WARM
        self._show("positief" if warm else "vaag")
        return self._line("farewell_good" if warm else "farewell_cool")

    def _rude(self) -> Found:
        if not self._does("rude"):
            return None
        self.memory.over = self.tone is Tone.RESERVED
        self._show("negatief")
        return self._line("rude")

    def _objection_met(self) -> Found:
        objection = next((o for o in self.story.objections if o.id == self.memory.pending), None)
        if objection is None:
            return None
        quality = self._quality_against(self._id_of(objection.attitude))
        if quality in GOOD or (quality is Quality.BIJNA and self.memory.pushed):
            return self._softened(objection)
        self.memory.pushed += 1
        self._show(objection.attitude)
        if self.memory.pushed > PUSHES and self.tone is Tone.RESERVED:
            return self._leave()
        if self.memory.pushed > PUSHES:
            self.memory.pending = None
        return self._own(f"insists:{objection.id}", (objection.insists,)) or self._line("insists")

    def _softened(self, objection: Objection) -> str:
        self.memory.pending, self.memory.pushed = None, 0
        self._show("positief")
        return self._own(f"softens:{objection.id}", (objection.softens,)) or self._line("softened")

    def _objection_raised(self) -> Found:
        attitude = self.method.attitude(self.moment.attitude)
        if attitude is None or attitude.tip_type is not TipType.LOCK or self.memory.won:
            return None
        objection = self._objection(attitude)
        if objection is None:
            return self._line(attitude.key, "insists")
        self.memory.pending, self.memory.pushed = objection.id, 0
        said = self._own(f"says:{objection.id}", (objection.says,)) or self._line("insists")
        return self._led(attitude.key, said)

    def _objection(self, attitude: Attitude) -> Objection | None:
        """One of the bank for this attitude that was not raised yet; of a method with one kind of resistance
        only, any."""
        fresh = [o for o in self.story.objections if f"says:{o.id}#0" not in self.memory.used]
        fitting = [o for o in fresh if self._id_of(o.attitude) == attitude.id]
        kinds = [a for a in self.method.attitudes if a.tip_type is TipType.LOCK]
        pool = fitting or (fresh if len(kinds) < 2 else [])
        return self.rng.choice(pool) if pool else None

    def _close(self) -> Found:
        if not self._closes():
            return None
        if self.memory.won:
            self._show("positief")
            self.agrees = True
            return self._line("positief")
        if self._kind is TipType.POSITIEF and self.customer.dynamics.commit >= READY:
            self.memory.won = self.agrees = True
            return self._line("close_yes")
        if not self.memory.agreed:
            self._show("negatief")
            return self._line("early", "close_cool")
        if self._kind is TipType.POSITIEF:
            self._show("vaag")
        return self._line("close_cool")

    def _summary(self) -> Found:
        if not self._sums_up():
            return None
        told = sum(self.memory.told.values())
        refuses = self._kind is TipType.WAARSCHUWING or self._quality is Quality.GEMIST
        if told >= ENOUGH_FACTS and not refuses:
            self.memory.agreed = self.agrees = True
            self._show("positief")
            return self._line("summary_yes")
        self._show("negatief")
        missing = self._own("pains", self.story.pains) if told else None
        if missing is None:
            return self._line("summary_no")
        return self._line("summary_half").replace("{missing}", missing)

    def _fact(self) -> Found:
        known = [topic for topic in self.heard.topics if topic in self.story.facts]
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
            return self._told_again(topic)
        more = 2 if self.tone is Tone.WARM and told == 0 else 1
        said = " ".join(lines[told : told + more])
        self.memory.told[topic] = min(len(lines), told + more)
        if self._kind is TipType.WAARSCHUWING:
            return f"{said} {self._line('misfit')}"
        return self._acked(said) if told == 0 else said

    def _told_again(self, topic: str) -> str:
        """The same fact behind other words, three times at most."""
        short = self.story.facts[topic][0]
        for key, line in self.book.bucket("again", self.tone):
            if f"{key}:{topic}" not in self.memory.used:
                self.memory.used.add(f"{key}:{topic}")
                self.memory.lost += 1
                return line.replace("{fact}", short)
        return self._line("again_and_again")

    def _consequence(self) -> Found:
        """What hurts, and what follows from it."""
        if self._uses_epic(Epic.IMPACT) or self._does("impact"):
            return self._from("impacts", self.story.impacts, "impact")
        if self._uses_epic(Epic.PROBE) or self._does("probe"):
            return self._from("pains", self.story.pains, "pain")
        return None

    def _opinion(self) -> Found:
        if not self._does("opinion"):
            return None
        return self._from("opinions", self.story.opinions, "opinion")

    def _from(self, name: str, lines: Sequence[str], bucket: str) -> str:
        self.memory.lost = 0
        if self._kind is TipType.OPEN and name not in self.memory.dodged and self.tone is not Tone.WARM:
            self.memory.dodged.add(name)
            return self._evasion()
        said = self._own(name, lines)
        if said is not None:
            self.memory.told[name] = self.memory.told.get(name, 0) + 1
        if self._kind is TipType.OPEN:
            self._show("positief")
        return said or self._line(bucket)

    def _offer(self) -> Found:
        if not self._offers():
            return None
        if not self.memory.agreed and self.method.commitment_before is not None:
            self.memory.lost += 1
            if self._kind is TipType.POSITIEF:
                self._show("vaag")
            return self._line("early", "offer_cool")
        self.memory.lost = 0
        if self._kind is TipType.POSITIEF:
            return self._line("offer_good")
        return self._line("offer_cool")

    def _small_things(self) -> Found:
        """Courtesies and remarks; where the seller offers something as well, that counts."""
        if self._offers() and self.customer.phase != self._first_phase:
            return self._reacts("priced", "negatief") if self._does("priced") else None
        for move in ("agenda", "smalltalk", "intro", "compliment"):
            if self._does(move) and self._kind is not TipType.WAARSCHUWING:
                if (line := self._reacts(move, "positief")) is not None:
                    return line
        for move in ("competitor", "priced"):
            if self._does(move) and (line := self._reacts(move, "negatief")) is not None:
                return line
        if self._does("heard") and not self.heard.asks:
            return self._reacts("heard", "positief")
        return self._greeting()

    def _greeting(self) -> Found:
        if not (self._does("greeting") and self.memory.spoken == 1):
            return None
        self._show("positief")
        return self._own("openings", self.story.openings) or self._free("opening")

    def _reacts(self, bucket: str, attitude: str) -> Found:
        """A line of the bucket, shown as that attitude unless he is about to ask something."""
        line = self._free(bucket)
        if line is not None and self._kind is not TipType.WEDERVRAAG:
            self._show(attitude)
        return line

    def _patience(self) -> Found:
        """Talk that goes nowhere is noticed, then ended."""
        if self.moment.uses and self._quality is not Quality.GEMIST:
            self.memory.lost = 0
            return None
        self.memory.lost += 1
        if self.memory.lost >= LEAVES_AT or self.customer.dynamics.rapport <= COLD:
            return self._leave()
        if self.memory.lost >= IMPATIENT_AT:
            self._show("negatief")
            return self._line("impatient")
        return self._line("lost") if self.heard.words < 3 and not self._does("greeting") else None

    def _leave(self) -> str:
        self.memory.over = True
        self._show("negatief")
        return self._line("leaves")

    def _any_question(self) -> Found:
        """A question nobody foresaw: he tells something of his own that he has not told yet."""
        if not self.heard.asks:
            return None
        match self._kind:
            case TipType.OPEN:
                return self._evasion()
            case TipType.WAARSCHUWING:
                return self._own("opinions", self.story.opinions) or self._line("negatief")
            case _:
                return self._something()

    def _something(self) -> str:
        """While he is still being discovered: what matters most of the untold; later: what he thinks."""
        later = self.customer.phase >= (self.method.commitment_before or self._last_phase)
        untold = [t for t in MATTERS if t in self.story.facts and not self.memory.told.get(t)]
        if self.heard.topics:
            return self._line("unknown")
        if untold and not later:
            return self._told(untold[0])
        return self._own("opinions", self.story.opinions) or self._line("opinion", "unknown")

    def _evasion(self) -> str:
        return self._line("vaguely" if self._key == "vaag" else self._key, "ontwijkend", "vaguely")

    def _by_attitude(self) -> Found:
        return self._line(self._key, "filler")

    # A drill

    def _drill(self, script: Script) -> str:
        self._show(script.attitude)
        quality = self._quality_against(self._id_of(script.attitude))
        good = quality in GOOD
        self.memory.met += good
        if self.memory.met >= 2 and self.memory.spoken >= DRILL_TURNS.start:
            return self._drill_ends("drill_done")
        if self.memory.spoken >= DRILL_TURNS.stop - 1:
            return self._drill_ends("drill_done" if good else "drill_over")
        if good:
            return self._line("drill_soft")
        if quality is not None and RANK[quality] == RANK[Quality.BIJNA]:
            return self._line("drill_half")
        return self._own("script", script.lines) or self._line("drill_hard")

    def _drill_ends(self, bucket: str) -> str:
        self.memory.over = True
        if bucket == "drill_done":
            self.agrees = True
            self._show("positief")
        return self._line(bucket)

    # Attitudes

    @property
    def _kind(self) -> TipType | None:
        attitude = self.method.attitude(self.shown)
        return attitude.tip_type if attitude else None

    @property
    def _key(self) -> str:
        """The key of the attitude shown, which names its bucket."""
        attitude = self.method.attitude(self.shown)
        return attitude.key if attitude else "vaag"

    def _id_of(self, name: str) -> str:
        """The id of an attitude in this method; of one it does not have, that of the attitude drawn."""
        attitude = self.method.attitude(name)
        return attitude.id if attitude else self.moment.attitude

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
        question = self._own("questions", self.story.questions)
        if question is None:
            if asks:
                self._show("positief")
            return text
        self._show("vraag")
        return f"{text} {question}"

    def _acked(self, said: str) -> str:
        """A small word before a fact, from those who are not reserved, not every time."""
        if self.tone is Tone.RESERVED or self.rng.random() < 0.4:
            return said
        ack = self._free("ack")
        return f"{ack} {said}" if ack else said

    def _led(self, bucket: str, said: str) -> str:
        lead = self._free(bucket) if self.tone is not Tone.RESERVED and self.rng.random() < 0.5 else None
        return f"{lead} {said}" if lead else said

    def _own(self, name: str, lines: Sequence[str]) -> Found:
        """The next line of the scenario's own that was not said yet."""
        for number, line in enumerate(lines):
            key = f"{name}#{number}"
            if key not in self.memory.used:
                self.memory.used.add(key)
                return line
        return None

    def _free(self, bucket: str) -> Found:
        """A line of the bucket that was not said yet: one for his tone as long as there is one."""
        free = [(k, t) for k, t in self.book.bucket(bucket, self.tone) if k not in self.memory.used]
        toned = [pair for pair in free if pair[0].startswith(f"{bucket}.{self.tone}#")]
        if not free:
            return None
        key, text = self.rng.choice(toned or free)
        self.memory.used.add(key)
        return text

    def _line(self, *buckets: str) -> str:
        """A fresh line of the first bucket that has one. Who has nothing left to say ends the talk."""
        for bucket in (*buckets, "filler"):
            if (line := self._free(bucket)) is not None:
                return line
        if not self.memory.over:
            self.memory.over = True
            return self._free("leaves") or self.book.lines["leaves"][0]
        return self.book.lines["after"][0]
