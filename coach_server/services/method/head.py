"""The trained second head: from a sentence's embedding and the phase it was said in to techniques, attitude.

Kernel ridge regression as in `services/head.py`: a new sentence is compared with each labelled one, and one
that was said in the same phase counts more. Techniques learn from sellers' sentences alone, attitudes from
customers'. Whether a sentence takes any step at all is learned apart and counts in every score: it keeps the
ones that only ask for a pen quiet. A finding of the method's cues adds to the odds, and so does a technique
that meets what the customer just showed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from coach_server import paths
from coach_server.domain.cues import Finding
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError
from coach_server.services.head import VECTOR_STEPS, Matrix, centre, kernel, logistic, signs_of

FORMAT = 1
# What a cue of full strength, and meeting the customer's attitude, add to the log odds.
CUE_WEIGHT = 1.5
MEETS_WEIGHT = 1.0
# How much a sentence of the same phase counts above one of another: the phase tells more about what a seller
# does than about how a customer answers.
PHASE_SHARE_SELLER, PHASE_SHARE_CUSTOMER = 0.25, 0.15
UNKNOWN_PHASE = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """An utterance and where it was said. `phase` None: nobody knows. `attitude`: the customer's last one."""

    text: str
    speaker: Speaker
    phase: int | None
    attitude: str | None = None


@dataclass(frozen=True, slots=True)
class MethodHead:
    """`techniques`, `attitudes`: ids, in the order of the labels, techniques first. `vectors`: (sentences,
    dimensions); `signs`, `phases`: (sentences,); `alpha`: (sentences, labels and two more: any technique, any
    attitude); `bias`: the same; `slope`, `offset`: (2,), of techniques and of attitudes. `thresholds`:
    `first`, `second` (a second technique) and `attitude`."""

    method: str
    techniques: tuple[str, ...]
    attitudes: tuple[str, ...]
    mean: Matrix
    vectors: Matrix
    signs: Matrix
    phases: Matrix
    alpha: Matrix
    bias: Matrix
    slope: Matrix
    offset: Matrix
    thresholds: Mapping[str, float]
    data_hash: str

    def odds(self, embeddings: Matrix, signs: Matrix, phases: Matrix) -> Matrix:
        """(n, dimensions) embeddings -> (n, labels) log odds, without cues."""
        likeness = phased_kernel(
            centre(embeddings, self.mean), signs, phases, self.vectors, self.signs, self.phases
        )
        scores = with_any(likeness @ self.alpha + self.bias, len(self.techniques))
        counts = (len(self.techniques), len(self.attitudes))
        return np.asarray(scores * np.repeat(self.slope, counts) + np.repeat(self.offset, counts))

    def decide(
        self, method: Methodology, seen: Seen, cued: Sequence[Finding], vector: Matrix
    ) -> list[Finding]:
        """What holds, the surest first: two techniques at most, or one attitude. A finding has the quote of
        its cue where there is one, else the whole text."""
        phases = np.array([seen.phase or UNKNOWN_PHASE], dtype=np.float32)
        odds = self.odds(vector[None, :], signs_of([seen.speaker]), phases)[0]
        if seen.speaker is Speaker.AGENT:
            return self._techniques(method, seen, cued, odds[: len(self.techniques)])
        return self._attitude(method, seen, cued, odds[len(self.techniques) :])

    def _techniques(
        self, method: Methodology, seen: Seen, cued: Sequence[Finding], odds: Matrix
    ) -> list[Finding]:
        strength = cue_strength(method, cued)
        more = [
            CUE_WEIGHT * strength.get(name, 0.0)
            + (MEETS_WEIGHT if method.meets(name, seen.attitude, seen.phase or 0) else 0.0)
            for name in self.techniques
        ]
        chances = logistic(odds + np.array(more))
        open_here = [technique_fits(method, name, seen.phase) for name in self.techniques]
        order = np.argsort(-np.where(open_here, chances, -1.0), kind="stable")
        chosen: list[Finding] = []
        for place, needed in zip(order, (self.thresholds["first"], self.thresholds["second"]), strict=False):
            if not open_here[place] or chances[place] < needed:
                break
            chosen += _with_quotes(method, self.techniques[place], float(chances[place]), seen.text, cued)
        return chosen

    def _attitude(
        self, method: Methodology, seen: Seen, cued: Sequence[Finding], odds: Matrix
    ) -> list[Finding]:
        quotes = {f.name: f for f in cued}
        more = [CUE_WEIGHT * quotes[n].strength if n in quotes else 0.0 for n in self.attitudes]
        chances = logistic(odds + np.array(more))
        sure = [
            Finding(name, quotes[name].quote if name in quotes else seen.text.strip(), float(chance))
            for name, chance in zip(self.attitudes, chances, strict=True)
            if chance >= self.thresholds["attitude"]
        ]
        fitting = [found for found in sure if attitude_fits(method, found.name, seen.phase)]
        return sorted(fitting or sure, key=lambda found: -found.strength)

    def save(self, path: Path) -> None:
        facts = {
            "format": FORMAT,
            "method": self.method,
            "techniques": self.techniques,
            "attitudes": self.attitudes,
            "thresholds": dict(self.thresholds),
            "data_hash": self.data_hash,
        }
        np.savez_compressed(
            path,
            mean=self.mean,
            vectors=np.round(self.vectors * VECTOR_STEPS).astype(np.int8),
            signs=self.signs.astype(np.int8),
            phases=self.phases.astype(np.int8),
            alpha=self.alpha.astype(np.float16),
            bias=self.bias,
            slope=self.slope,
            offset=self.offset,
            facts=np.array(json.dumps(facts, sort_keys=True)),
        )

    @classmethod
    def load(cls, path: Path) -> MethodHead:
        """Raises ConfigError when the file is not a head this version can use."""
        names = ("mean", "vectors", "signs", "phases", "alpha", "bias", "slope", "offset")
        try:
            with np.load(path, allow_pickle=False) as data:
                facts = json.loads(str(data["facts"]))
                if facts.get("format") != FORMAT:
                    raise ConfigError(
                        f"{path.name}: of another version; run `python -m training.method_train`"
                    )
                parts = [data[name].astype(np.float32) for name in names]
            mean, vectors, signs, phases, alpha, bias, slope, offset = parts
            return cls(
                method=str(facts["method"]),
                techniques=tuple(facts["techniques"]),
                attitudes=tuple(facts["attitudes"]),
                mean=mean,
                vectors=vectors / VECTOR_STEPS,
                signs=signs,
                phases=phases,
                alpha=alpha,
                bias=bias,
                slope=slope,
                offset=offset,
                thresholds=facts["thresholds"],
                data_hash=str(facts["data_hash"]),
            )
        except (OSError, EOFError, ValueError, KeyError) as fault:
            raise ConfigError(f"{path.name}: not a trained head ({fault})") from fault


@cache
def load_heads() -> Mapping[str, MethodHead]:
    """The trained heads of the catalog, by method."""
    file = paths.catalog() / "detector" / "method.npz"
    if not file.exists():
        return {}
    head = MethodHead.load(file)
    return {head.method: head}


def phased_kernel(
    left: Matrix,
    left_signs: Matrix,
    left_phases: Matrix,
    right: Matrix,
    right_signs: Matrix,
    right_phases: Matrix,
) -> Matrix:
    """The kernel of `head.py`; sentences of the same phase count more, unless one's phase is not known."""
    share = np.where(left_signs > 0, PHASE_SHARE_CUSTOMER, PHASE_SHARE_SELLER)
    share = np.where(left_phases == UNKNOWN_PHASE, 0.0, share)[:, None]
    same = np.where(left_phases[:, None] == right_phases[None, :], 1.0 + share, 1.0 - share)
    return np.asarray(kernel(left, left_signs, right, right_signs) * same, dtype=np.float32)


def with_any(scores: Matrix, techniques: int) -> Matrix:
    """(n, labels + 2) scores -> (n, labels): each label's own and that of any label of its kind."""
    return np.hstack([scores[:, :techniques] + scores[:, [-2]], scores[:, techniques:-2] + scores[:, [-1]]])


def cue_strength(method: Methodology, cued: Sequence[Finding]) -> dict[str, float]:
    """By step: a cue of a detail speaks for the step it counts for."""
    strength: dict[str, float] = {}
    for finding in cued:
        step = method.step(finding.name)
        if step is not None:
            strength[step.id] = max(strength.get(step.id, 0.0), finding.strength)
    return strength


def technique_fits(method: Methodology, technique_id: str, phase: int | None) -> bool:
    """Whether a finding there says something: it may be used in this phase, or it is a mistake in it."""
    found = method.find(technique_id)
    if found is None:
        return False
    return phase is None or not found.phases or phase in found.phases or phase in found.forbidden


def attitude_fits(method: Methodology, attitude_id: str, phase: int | None) -> bool:
    found = method.attitude(attitude_id)
    return found is not None and (phase is None or not found.phases or phase in found.phases)


def _with_quotes(
    method: Methodology, name: str, chance: float, text: str, cued: Sequence[Finding]
) -> list[Finding]:
    """The step, and the details of it that the cues saw."""
    beneath = [f for f in cued if (step := method.step(f.name)) is not None and step.id == name]
    own = next((f.quote for f in beneath if f.name == name), text.strip())
    details = [Finding(f.name, f.quote, min(f.strength, chance)) for f in beneath if f.name != name]
    return [Finding(name, own, chance), *details]


class ExampleHead:
    """Reads by likeness to the method's own example sentences: the nearest, when it is near enough and
    clearly nearer than any other technique. `examples`: technique ids, a row of `vectors` each."""

    NEAR, MARGIN = 0.5, 0.08

    def __init__(self, ids: Sequence[str], vectors: Matrix) -> None:
        self._ids = tuple(ids)
        self._mean = vectors.mean(axis=0)
        self._vectors = centre(vectors, self._mean)

    def decide(
        self, method: Methodology, seen: Seen, cued: Sequence[Finding], vector: Matrix
    ) -> list[Finding]:
        """The cues' findings, and the technique of the nearest example when they found none."""
        if seen.speaker is Speaker.CUSTOMER or cued:
            return list(cued)
        likeness = self._vectors @ centre(vector[None, :], self._mean)[0]
        best: dict[str, float] = {}
        for name, value in zip(self._ids, likeness, strict=True):
            if technique_fits(method, name, seen.phase):
                best[name] = max(best.get(name, -1.0), float(value))
        ranked = sorted(best, key=lambda name: -best[name])
        if not ranked or best[ranked[0]] < self.NEAR:
            return []
        if len(ranked) > 1 and best[ranked[0]] - best[ranked[1]] < self.MARGIN:
            return []
        return [Finding(ranked[0], seen.text.strip(), best[ranked[0]])]
