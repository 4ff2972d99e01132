"""What the rules check always and the same way: checks before a product, forbidden words, no users.

    product named before every fatal check was made          breach: the talk ends as compliance_fail
    product named before one of several fatal checks         costs points (that check is late, or missing)
    a client event of the check's type, `correct: true`      the check is made
    a client event of the check's type, `correct: false`     the check failed, until one is correct
    forbidden word                                           noted with place and quote, once for each use
    customer is no user (`stops`), the trainee sells on      breach; only where no product suits the customer

Any phrasing of a check's question counts, in any order, also in the sentence that names the product.
Greetings and small talk are always fine (contract simulation.md §7).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from coach_server.domain.simulation.effects import Breach, Sight
from coach_server.domain.simulation.persona import CheckRule, Domain, SimPersona
from coach_server.domain.simulation.scene import Found, Said, Scene
from coach_server.domain.simulation.spotting import Hit, whole
from coach_server.domain.simulation.talk import Compliance, ForbiddenUse, Role, SessionEvent, Utterance


@dataclass(frozen=True, slots=True)
class CheckState:
    """`asked`: the first question that makes the check. `proofs`: the client's events in order, time and
    whether the check was passed."""

    rule: CheckRule
    asked: Found | None
    proofs: tuple[tuple[float, bool], ...] = ()

    @property
    def failed(self) -> bool:
        return bool(self.proofs) and not self.proofs[-1][1]

    @property
    def made(self) -> bool:
        return not self.failed and (self.asked is not None or bool(self.proofs))

    def made_before(self, found: Found) -> bool:
        """Whether it was made when that was said."""
        proofs = [passed for time, passed in self.proofs if time <= found.said.utterance.end]
        if proofs:
            return proofs[-1]
        return self.asked is not None and self.asked.place <= found.place


def check_states(scene: Scene) -> tuple[CheckState, ...]:
    return tuple(
        CheckState(rule, scene.first(rule.cues, scene.trainee), _proofs(rule, scene.events))
        for rule in scene.domain.checks
    )


def examine(scene: Scene) -> Compliance:
    """All of it, for a talk so far."""
    checks = check_states(scene)
    named = [found for _, found in scene.products_named()]
    late = [check.rule.id for check in checks if named and check.made and not check.made_before(named[0])]
    return Compliance(
        checks={check.rule.id: check.made for check in checks},
        words=tuple(use for said in scene.trainee for use in forbidden_uses(scene, said)),
        product_before_checks=bool(named) and _none_made(checks, named[0]),
        failed=tuple(check.rule.id for check in checks if check.failed),
        late=tuple(late),
        pitched_after_stop=pitch_after_stop(scene) is not None,
    )


def sight(
    utterances: Sequence[Utterance],
    events: Sequence[SessionEvent],
    persona: SimPersona,
    domain: Domain,
    language: str,
) -> Sight:
    """What the last of these utterances shows; give it to the machine with `Heard`."""
    if not utterances or utterances[-1].role is not Role.TRAINEE:
        return Sight()
    alone = Scene.of(utterances[-1:], (), persona, domain, language)
    uses = forbidden_uses(alone, alone.trainee[0])
    if not alone.pitches():
        return Sight(uses)
    found = breach(Scene.of(utterances, events, persona, domain, language))
    committed_now = found is not None and found[1].said.sequence == utterances[-1].sequence
    return Sight(uses, found[0] if found is not None and committed_now else None)


def breach(scene: Scene) -> tuple[Breach, Found] | None:
    """The breach of the talk, and with what words. Only the first naming of a product can be one: after a
    talk has gone on, nobody is sent away for what was let pass."""
    named = scene.products_named()
    if named and _none_made(check_states(scene), named[0][1]):
        return Breach.PRODUCT_BEFORE_CHECKS, named[0][1]
    pitch = pitch_after_stop(scene)
    return None if pitch is None else (Breach.PITCH_AFTER_STOP, pitch)


def pitch_after_stop(scene: Scene) -> Found | None:
    """The first selling after the customer said not to be a user. A persona that a product suits is one,
    whatever it says of one kind of it (`I do not smoke`, said by somebody who uses another)."""
    if any(scene.suits(product) for product in scene.domain.products):
        return None
    stops = [found for rule in scene.domain.checks for found in scene.find(rule.stops, scene.avatar)]
    if not stops:
        return None
    stopped = min(found.said.sequence for found in stops)
    return next((pitch for pitch in scene.pitches() if pitch.said.sequence > stopped), None)


def forbidden_uses(scene: Scene, said: Said) -> tuple[ForbiddenUse, ...]:
    """Each use once; where two entries meet, the longer one counts."""
    found: list[tuple[Hit, str]] = []
    for word in scene.domain.forbidden:
        harmless = scene.hits(said, word.unless)
        found += [
            (hit, word.id)
            for hit in scene.hits(said, word.stems)
            if whole(said.utterance.text, hit) and not any(_overlap(hit, other) for other in harmless)
        ]
    found.sort(key=lambda pair: (pair[0].start - pair[0].end, pair[0].start))
    kept: list[tuple[Hit, str]] = []
    for hit, id in found:
        if not any(_overlap(hit, other) for other, _ in kept):
            kept.append((hit, id))
    return tuple(
        ForbiddenUse(id, said.sequence, hit.start, said.quote(hit))
        for hit, id in sorted(kept, key=lambda pair: pair[0].start)
    )


def _none_made(checks: Sequence[CheckState], named: Found) -> bool:
    fatal = [check for check in checks if check.rule.fatal]
    return bool(fatal) and not any(check.made_before(named) for check in fatal)


def _proofs(rule: CheckRule, events: Sequence[SessionEvent]) -> tuple[tuple[float, bool], ...]:
    found = [
        (event.time, event.data["correct"])
        for event in events
        if rule.event is not None
        and event.type == rule.event
        and isinstance(event.data, Mapping)
        and isinstance(event.data.get("correct"), bool)
    ]
    return tuple(sorted(found, key=lambda proof: proof[0]))


def _overlap(one: Hit, other: Hit) -> bool:
    return one.start < other.end and other.start < one.end
