"""The sales steps as the rules see them (seed 001: greet … close), each with the words that show it.

    rule                 done                                          failed
    greeting             in the trainee's first two utterances         two utterances without
    needs_before_pitch   a question for needs before the first pitch   a pitch before it
    right_product        a product named that suits the customer       at the end
    check                made, before a product was named              disproved, or a product named before it
    product_facts        two facts of a named product told             a false claim
    no_forbidden_words   at the end, none used                         one used
    objections           every one raised was answered                 at the end, one was not
    close                the decision asked for                        at the end

Anything else is open. At the end what is open has failed, except objections where none was raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from coach_server.domain.method.methodology import say
from coach_server.domain.simulation.compliance import CheckState, check_states, examine
from coach_server.domain.simulation.persona import Objection, SalesStep
from coach_server.domain.simulation.persona import pick as lines_of
from coach_server.domain.simulation.scene import Found, Said, Scene
from coach_server.domain.simulation.talk import StepState
from coach_server.domain.wording import clip, one_line, same_words

DONE, FAILED, OPEN = "done", "failed", "open"
GREETING_WITHIN = 2
FACTS_TOLD = 2
LONG_WORD = 5
ALIKE = 0.6
QUOTE_CHARS = 200
_NUMBER = re.compile(r"\d+")


def checklist(scene: Scene, *, is_over: bool = False) -> tuple[StepState, ...]:
    """The state of every step of the trade, in its order."""
    return tuple(_closed(_RULES[step.rule](scene, step), step, scene, is_over) for step in scene.domain.steps)


def raised(scene: Scene) -> list[tuple[Objection, Said]]:
    """The objections that the customer has raised, each with where it first was."""
    found = []
    for objection in scene.persona.objections:
        lines = lines_of(objection.says, scene.language)
        where = next((said for said in scene.avatar if any(_alike(line, said) for line in lines)), None)
        if where is not None:
            found.append((objection, where))
    return sorted(found, key=lambda pair: pair[1].sequence)


def answer_to(scene: Scene, objection: Objection, where: Said) -> Found | None:
    """What the trainee answered after it was raised."""
    after = [said for said in scene.trainee if said.sequence > where.sequence]
    return scene.first(objection.answers, after)


def _greeting(scene: Scene, step: SalesStep) -> StepState:
    found = scene.first(scene.domain.greetings, scene.trainee[:GREETING_WITHIN])
    if found is not None:
        return _shown(step, DONE, found)
    return StepState(step.id, FAILED if len(scene.trainee) >= GREETING_WITHIN else OPEN)


def _needs(scene: Scene, step: SalesStep) -> StepState:
    asked = scene.first(scene.domain.needs, scene.trainee)
    pitch = next(iter(scene.pitches()), None)
    if asked is not None and (pitch is None or asked.place <= pitch.place):
        return _shown(step, DONE, asked)
    return StepState(step.id, OPEN) if pitch is None else _shown(step, FAILED, pitch)


def _right_product(scene: Scene, step: SalesStep) -> StepState:
    named = scene.products_named()
    fitting = next((found for product, found in named if scene.suits(product)), None)
    if fitting is not None:
        return _shown(step, DONE, fitting)
    return StepState(step.id, OPEN)


def _check(scene: Scene, step: SalesStep) -> StepState:
    check = next((one for one in check_states(scene) if one.rule.id == step.check_id), None)
    if check is None:
        return StepState(step.id, OPEN)
    state = _check_state(check, scene)
    if check.asked is not None:
        return _shown(step, state, check.asked)
    return StepState(step.id, state)


def _check_state(check: CheckState, scene: Scene) -> str:
    named = next((found for _, found in scene.products_named()), None)
    if check.failed or (named is not None and not check.made_before(named)):
        return FAILED
    return DONE if check.made else OPEN


def _product_facts(scene: Scene, step: SalesStep) -> StepState:
    for product in scene.domain.products:
        false = scene.first(product.wrong, scene.trainee)
        if false is not None:
            return _shown(step, FAILED, false)
    for product, named in scene.products_named():
        facts = say(product.facts, scene.language)
        after = [said for said in scene.trainee if said.sequence >= named.said.sequence]
        telling = [said for said in after if _facts_in(said, facts)]
        if len(set().union(*(_facts_in(said, facts) for said in telling))) >= FACTS_TOLD:
            return _said(step, DONE, telling[0])
    return StepState(step.id, OPEN)


def _no_forbidden_words(scene: Scene, step: SalesStep) -> StepState:
    used = next(iter(examine(scene).words), None)
    if used is None:
        return StepState(step.id, OPEN)
    return StepState(step.id, FAILED, used.quote, used.sequence)


def _objections(scene: Scene, step: SalesStep) -> StepState:
    asked = raised(scene)
    answers = [answer_to(scene, objection, where) for objection, where in asked]
    if answers and all(answer is not None for answer in answers):
        return next(_shown(step, DONE, answer) for answer in reversed(answers) if answer is not None)
    where = next((where for (_, where), answer in zip(asked, answers, strict=True) if answer is None), None)
    return StepState(step.id, OPEN) if where is None else _said(step, OPEN, where)


def _close(scene: Scene, step: SalesStep) -> StepState:
    found = scene.first(scene.domain.closes, scene.trainee)
    return StepState(step.id, OPEN) if found is None else _shown(step, DONE, found)


_RULES: dict[str, Callable[[Scene, SalesStep], StepState]] = {
    "greeting": _greeting,
    "needs_before_pitch": _needs,
    "right_product": _right_product,
    "check": _check,
    "product_facts": _product_facts,
    "no_forbidden_words": _no_forbidden_words,
    "objections": _objections,
    "close": _close,
}
RULES = frozenset(_RULES)
"""What `SalesStep.rule` may be."""


def _closed(state: StepState, step: SalesStep, scene: Scene, is_over: bool) -> StepState:
    """The step when nothing more will be said."""
    if not is_over or state.state != OPEN:
        return state
    if step.rule == "objections" and state.sequence is None:
        return state
    passed = step.rule == "no_forbidden_words" and scene.trainee
    return StepState(state.id, DONE if passed else FAILED, state.quote, state.sequence)


def _shown(step: SalesStep, state: str, found: Found) -> StepState:
    return StepState(step.id, state, found.quote, found.said.sequence)


def _said(step: SalesStep, state: str, said: Said) -> StepState:
    return StepState(step.id, state, clip(one_line(said.utterance.text), QUOTE_CHARS), said.sequence)


def _facts_in(said: Said, facts: str) -> frozenset[str]:
    """The numbers and longer words of the facts that were said."""
    return _marks(said.utterance.text) & _marks(facts)


def _marks(text: str) -> frozenset[str]:
    words = same_words(text).split()
    return frozenset([*_NUMBER.findall(text), *(word for word in words if len(word) >= LONG_WORD)])


def _alike(line: str, said: Said) -> bool:
    """Whether most words of a line of the persona were said: a model varies its lines."""
    wanted = _telling(same_words(line).split())
    heard = set(same_words(said.utterance.text).split())
    return bool(wanted) and sum(word in heard for word in wanted) / len(wanted) >= ALIKE


def _telling(words: Sequence[str]) -> list[str]:
    longer = [word for word in words if len(word) > 3]
    return longer if len(longer) > 1 else list(words)
