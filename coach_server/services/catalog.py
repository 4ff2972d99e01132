"""The catalog as a whole: every data file that is the same for all installations, read and checked once.

What is read does not change afterwards, so several servers of one process may share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coach_server import paths
from coach_server.domain.cues import Cues
from coach_server.domain.method.cues import MethodCues
from coach_server.domain.method.methodology import Methodology
from coach_server.services.analysis_wording import load_wordings
from coach_server.services.answers import SCHEMAS
from coach_server.services.detector import load_cues, load_head
from coach_server.services.head import Head
from coach_server.services.method.eyes import compile_all
from coach_server.services.method.head import MethodHead, load_heads
from coach_server.services.method.knowledge import Knowledge
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.customer_words import CustomerWords
from coach_server.services.practice.feedback_wording import load_feedback_wordings
from coach_server.services.practice.scenarios import Scenarios
from coach_server.services.prompts import Prompts
from coach_server.services.simulation.director import Director
from coach_server.services.simulation.guidance import GuidanceWords
from coach_server.services.simulation.nods import Nods
from coach_server.services.simulation.personas import Personas


@dataclass(frozen=True, slots=True)
class Catalog:
    """`cues` by language; `head`, `heads`: what the detectors were trained to; `compiled`: the cues of every
    method in every language."""

    cues: Mapping[str, Cues]
    head: Head | None
    heads: Mapping[str, MethodHead]
    prompts: Prompts
    methods: Methodologies
    compiled: dict[tuple[str, str], MethodCues]
    scenarios: Scenarios
    knowledge: Knowledge
    customers: CustomerWords
    personas: Personas
    director: Director
    guidance: GuidanceWords
    nods: Nods

    @classmethod
    def load(cls) -> Catalog:
        """Raises ConfigError naming file and line of the first mistake. Blocks: call it before serving."""
        home = paths.catalog()
        methods = Methodologies.load()
        load_wordings()
        load_feedback_wordings()
        cues = load_cues()
        return cls(
            cues=cues,
            head=load_head(),
            heads=load_heads(),
            prompts=Prompts.load(paths.bundled("prompts"), outputs=SCHEMAS.keys()),
            methods=methods,
            compiled=compile_all(methods.all(), cues.values()),
            scenarios=Scenarios.load(home / "scenarios", methods),
            knowledge=_knowledge(home, methods.default),
            customers=CustomerWords.load(home / "customers"),
            personas=Personas.load(),
            director=Director.load(home / "simulation" / "director.toml"),
            guidance=GuidanceWords.load(home / "simulation" / "guidance.toml"),
            nods=Nods.load(home / "simulation" / "nods.toml"),
        )


def _knowledge(home: Path, method: Methodology) -> Knowledge:
    """Questions and answers on the default method. Raises ConfigError."""
    techniques = {one.id for one in method.techniques}
    attitudes = {one.id for one in method.attitudes}
    return Knowledge.load(home / "knowledge", techniques, attitudes, method=method.id)
