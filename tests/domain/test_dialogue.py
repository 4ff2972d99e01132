from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence

import pytest

from coach_server.domain.customer import dialogue
from coach_server.domain.customer.dialogue import Answer, Moment
from coach_server.domain.customer.dynamics import Dynamics
from coach_server.domain.customer.mind import Customer, begin
from coach_server.domain.customer.persona import Scenario, Script
from coach_server.domain.method.methodology import Methodology
from coach_server.domain.method.turns import Quality, TechniqueUse
from coach_server.domain.wording import same_words, share_of_script
from coach_server.paths import catalog
from coach_server.services.method.methodologies import Methodologies
from coach_server.services.practice.customer_words import CustomerWords
from coach_server.services.practice.scenarios import from_dict

WORDS = CustomerWords.load(catalog() / "customers")
METHODS = Methodologies.load()
SCENARIOS = {
    scenario.id: scenario
    for scenario in (
        from_dict(tomllib.loads(path.read_text(encoding="utf-8")))
        for path in sorted((catalog() / "scenarios").glob("*.toml"))
    )
}
DEFAULT = SCENARIOS["default-sales-scenario"]
TOLD = [(scenario, language) for scenario in SCENARIOS.values() for language in scenario.languages]
TOLD_IDS = [f"{scenario.id}-{language}" for scenario, language in TOLD]
EASE, COOL = Dynamics(0.5, 0.5, 0.6), Dynamics(0.2, 0.5, 0.3)


def use(technique: str, quality: Quality = Quality.GOED) -> TechniqueUse:
    return TechniqueUse(technique, quality, "")


def method_of(scenario: Scenario) -> Methodology:
    return METHODS.methods.get(scenario.methodology, METHODS.default)


class Talk:
    """A talk with one customer. `say` answers as the attitude given, in the mood given."""

    def __init__(
        self, language: str = "en", scenario: Scenario = DEFAULT, mood: Dynamics = EASE, phase: int = 2
    ) -> None:
        self.scenario = scenario
        self.book = WORDS.book(language)
        self.customer: Customer = begin(scenario, method_of(scenario), 1)
        self.customer.dynamics = mood
        self.customer.phase = phase
        self.rng = random.Random(1)

    @property
    def facts(self) -> dict[str, tuple[str, ...]]:
        return dict(self.scenario.story(self.book.language).facts)

    def say(
        self,
        words: str,
        attitude: str = "H1",
        uses: Sequence[TechniqueUse] = (),
        script: Script | None = None,
    ) -> Answer:
        moment = Moment(self.scenario, self.customer, attitude, words, uses, script)
        answer = dialogue.reply(self.book, moment, self.rng)
        self.customer.memory = answer.memory
        return answer

    def discovered(self) -> Talk:
        for words in ("What is your budget?", "Who decides?", "Why now?"):
            self.say(words)
        return self


# What he knows

QUESTIONS = {
    "en": {
        "source": "How did you hear about us?",
        "motivation": "Why are you looking for this now?",
        "experience": "Have you ever tried something like this before?",
        "expectations": "What do you expect from a solution?",
        "alternatives": "Who else are you talking to?",
        "budget": "What is your budget?",
        "timing": "When do you need it to run?",
        "criteria": "What will you base your choice on? Which criteria?",
        "decider": "Who decides on this?",
        "company": "Could you tell me about your company?",
        "team": "How many people work here?",
        "process": "How do you plan the work today?",
        "volume": "How many orders do you handle a month?",
        "supplier": "Who is your current supplier?",
    },
    "nl": {
        "source": "Hoe bent u bij ons terechtgekomen?",
        "motivation": "Waarom zoekt u net nu?",
        "experience": "Hebt u dat al eens geprobeerd?",
        "expectations": "Wat verwacht u van een oplossing?",
        "alternatives": "Met wie vergelijkt u nog?",
        "budget": "Welk budget hebt u voorzien?",
        "timing": "Wanneer moet het klaar zijn?",
        "criteria": "Waarop beslist u, wat geeft de doorslag?",
        "decider": "Wie beslist er mee?",
        "company": "Kunt u uw situatie eens schetsen?",
        "team": "Met hoeveel mensen werkt u?",
        "process": "Hoe regelt u dat vandaag?",
        "volume": "Hoeveel facturen verwerkt u per maand?",
        "supplier": "Wie is uw huidige leverancier?",
    },
    "he": {
        "source": "איך הגעתם אלינו?",
        "motivation": "למה דווקא עכשיו?",
        "experience": "ניסית בעבר משהו דומה?",
        "expectations": "מה אתם מצפים מהפתרון?",
        "alternatives": "אתם מדברים עם ספקים אחרים?",
        "budget": "מה התקציב שלכם?",
        "timing": "מתי צריך להתחיל?",
        "criteria": "מה הקריטריונים שלכם?",
        "decider": "מי מחליט על זה?",
        "company": "ספר לי על החברה שלך?",
        "team": "כמה אנשים עובדים כאן?",
        "process": "איך אתם עובדים היום?",
        "volume": "כמה הזמנות יש לכם בחודש?",
        "supplier": "מי הספק הנוכחי שלכם?",
    },
}


@pytest.mark.parametrize(
    ("language", "topic"), [(code, topic) for code, asked in QUESTIONS.items() for topic in asked]
)
def test_a_question_for_a_fact_gets_that_fact(language: str, topic: str) -> None:
    talk = Talk(language)

    assert talk.facts[topic][0] in talk.say(QUESTIONS[language][topic]).text


@pytest.mark.parametrize(("scenario", "language"), TOLD, ids=TOLD_IDS)
def test_every_scenario_answers_the_questions_of_its_languages(scenario: Scenario, language: str) -> None:
    for topic, question in QUESTIONS[language].items():
        talk = Talk(language, scenario)
        attitude = talk.customer.method.attitudes[0].id

        assert talk.facts[topic][0] in talk.say(question, attitude).text


def test_who_asks_on_gets_more_and_then_hears_that_it_was_said() -> None:
    talk = Talk()
    short, more = talk.facts["budget"]

    answers = [talk.say("What is your budget?").text for _ in range(6)]

    assert short in answers[0]
    assert more in answers[1]
    assert all(answer.endswith(short) and answer != short for answer in answers[2:5])
    assert short not in answers[5]
    assert len(set(answers)) == 6


def test_a_warm_customer_tells_more_at_once_than_a_reserved_one() -> None:
    warm = Talk(mood=Dynamics(0.8, 0.5, 0.5)).say("What is your budget?").text
    cool = Talk(mood=COOL).say("What is your budget?").text

    short, more = Talk().facts["budget"]
    assert short in warm and more in warm
    assert cool == short


@pytest.mark.parametrize("attitude", ["H3", "H4"])
def test_a_vague_or_evasive_customer_keeps_a_fact_back_once(attitude: str) -> None:
    talk = Talk()
    first = talk.say("What is your budget?", attitude)
    second = talk.say("I mean, what budget have you set aside?", attitude)

    assert talk.facts["budget"][0] not in first.text
    assert first.attitude == attitude
    assert talk.facts["budget"][0] in second.text
    assert second.attitude == "H1"


def test_a_question_nobody_foresaw_gets_what_shares_its_words() -> None:
    answer = Talk("en", SCENARIOS["industrial-machine"]).say("And the changeover, is that long?")

    assert "Changeovers in less than a quarter of an hour" in answer.text


def test_a_statement_with_a_verb_before_its_subject_is_no_question() -> None:
    talk = Talk("nl")
    answer = talk.say("Met ons contract betaalt u elke maand hetzelfde bedrag.")

    assert talk.facts["budget"][0] not in answer.text


def test_he_does_not_keep_something_back_twice_in_a_row() -> None:
    talk = Talk()
    first = talk.say("What is your budget?", "H4")
    second = talk.say("Who decides on this?", "H4")

    assert first.attitude == "H4"
    assert talk.facts["decider"][0] in second.text


def test_a_word_that_is_not_asked_for_is_no_question() -> None:
    talk = Talk()

    assert talk.facts["budget"][0] not in talk.say("Our product fits every budget.").text


def test_a_customer_who_asks_puts_a_question_of_his_own_behind_the_answer() -> None:
    answer = Talk().say("What is your budget?", "H5")

    assert answer.attitude == "H5"
    assert answer.text.endswith("?")


# Summary, offer, close


def test_a_summary_before_anything_was_told_is_refused() -> None:
    answer = Talk().say("So if I understand you right, you want our package?", "H1", [use("2.1.8")])

    assert not answer.agrees
    assert answer.attitude == "H2"


def test_a_summary_of_what_he_told_gets_a_yes() -> None:
    answer = (
        Talk()
        .discovered()
        .say("So you want to be in time and to avoid lost orders?", "H4", [use("2.1.8", Quality.PERFECT)])
    )

    assert answer.agrees
    assert answer.memory.agreed
    assert answer.attitude == "H1"


def test_a_poor_summary_is_completed_by_the_customer() -> None:
    talk = Talk().discovered()
    answer = talk.say("To sum up, you want it cheap.", "H1", [use("2.1.8", Quality.GEMIST)])

    assert not answer.agrees
    assert any(pain in answer.text for pain in talk.scenario.story("en").pains)


def test_an_offer_before_a_commitment_is_too_early() -> None:
    early = Talk(phase=3).say("We can offer you our platform.", "H1", [use("3.2")])
    talk = Talk(phase=3).discovered()
    talk.customer.memory.agreed = True
    later = talk.say("We can offer you our platform.", "H1", [use("3.2")])

    lines = WORDS.book("en").lines
    assert early.text in lines["early"]
    assert any(line in later.text for line in lines["offer_good"])
    assert later.attitude == "H1"


def closing_talk() -> Talk:
    talk = Talk(phase=4).discovered()
    talk.customer.memory.agreed = True
    return talk


def test_a_trial_close_brings_an_objection_of_the_bank() -> None:
    talk = closing_talk()
    answer = talk.say("Shall we start in March?", "H7", [use("4.1")])

    price = next(o for o in talk.scenario.story("en").objections if o.attitude == "bezwaar")
    assert price.says in answer.text
    assert answer.memory.pending == price.id
    assert answer.attitude == "H7"


@pytest.mark.parametrize("quality", [Quality.PERFECT, Quality.GOED])
def test_a_good_answer_softens_an_objection(quality: Quality) -> None:
    talk = closing_talk()
    talk.say("Shall we start in March?", "H7", [use("4.1")])
    answer = talk.say("I understand. What would the thirty hours be worth?", "H3", [use("4.2.4", quality)])

    price = next(o for o in talk.scenario.story("en").objections if o.id == "price")
    assert price.softens in answer.text
    assert answer.attitude == "H1"
    assert answer.memory.pending is None


@pytest.mark.parametrize("uses", [[], [use("4.2.4", Quality.GEMIST)], [use("3.3", Quality.PERFECT)]])
def test_a_poor_or_unfit_answer_does_not(uses: list[TechniqueUse]) -> None:
    talk = closing_talk()
    talk.say("Shall we start in March?", "H7", [use("4.1")])
    answer = talk.say("It is really not that much.", "H1", uses)

    assert answer.attitude == "H7"
    assert answer.memory.pending == "price"


def test_a_ready_customer_agrees_to_a_close() -> None:
    answer = closing_talk().say("Shall we start in March?", "H1", [use("4.1")])

    assert answer.agrees and answer.memory.won


B2B = SCENARIOS["telecom-b2b"]


def test_another_methods_attitudes_have_lines_of_their_kind() -> None:
    lines = WORDS.book("nl").lines
    shown = {
        attitude: Talk("nl", B2B).say("Dat noteer ik.", attitude).text for attitude in ("A1", "A2", "A6")
    }

    assert shown["A1"] in lines["positief"]
    assert shown["A2"] in lines["vaag"]
    assert shown["A6"] in lines["negatief"]


def test_another_methods_objection_is_raised_and_settled() -> None:
    talk = Talk("nl", B2B, phase=5)
    talk.customer.memory.agreed = True
    objection = next(o for o in B2B.story("nl").objections if o.attitude == "bezwaar")

    raised = talk.say("Zullen we starten?", "A4", [use("close.trial")])
    settled = talk.say("Wat bedoelt u precies?", "A1", [use("objection.clarify", Quality.PERFECT)])

    assert objection.says in raised.text and raised.attitude == "A4"
    assert objection.softens in settled.text and settled.attitude == "A1"


def test_another_methods_objection_during_discovery_is_not_about_an_offer() -> None:
    answer = Talk("nl", B2B).say("Hoe regelt u dat?", "A4")

    assert answer.memory.pending is None
    assert not any(o.says in answer.text for o in B2B.story("nl").objections)


def test_a_customer_who_agreed_raises_no_new_objection() -> None:
    talk = closing_talk()
    talk.say("Shall we start in March?", "H1", [use("4.1")])
    answer = talk.say("Then let us put it on paper.", "H7", [use("4.1")])

    assert answer.attitude == "H1"
    assert answer.memory.pending is None


# The end


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "Thank you for your time, goodbye!"),
        ("nl", "Dank u voor uw tijd, tot ziens!"),
        ("he", "תודה על הזמן, להתראות"),
    ],
)
def test_a_goodbye_ends_the_talk(language: str, words: str) -> None:
    talk = Talk(language)
    talk.say(QUESTIONS[language]["budget"])
    answer = talk.say(words)

    assert answer.ends and answer.memory.over


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("nl", "Dag mevrouw, goedemorgen!"),
        ("nl", "Kan dat wachten tot dinsdag?"),
        ("nl", "Onze technieker blijft tot vrijdag."),
        ("en", "Our technician stays until Friday."),
        ("en", "Have you had a good day?"),
    ],
)
def test_not_every_word_of_goodbye_ends_the_talk(language: str, words: str) -> None:
    talk = Talk(language)
    talk.say(QUESTIONS[language]["budget"])

    assert not talk.say(words).ends


@pytest.mark.parametrize("language", ["en", "nl", "he"])
def test_a_talk_that_goes_nowhere_is_ended_after_a_warning(language: str) -> None:
    talk = Talk(language)
    answers = [talk.say(words, "H3") for words in ("Hm.", "So.", "Well.", "Yes.", "Ok.", "Hm hm.")]

    assert [answer.ends for answer in answers] == [False] * 5 + [True]
    assert answers[3].text in WORDS.book(language).lines["impatient"]


def test_after_the_end_there_is_only_a_last_word() -> None:
    talk = Talk()
    talk.say("Who decides?")
    talk.say("Goodbye!")

    assert talk.say("What is your budget?").ends


# How he talks

SELLER = {
    "en": [
        "Good morning, lovely office.",
        "We help companies like yours.",
        "I understand, that must be hard.",
        "It costs 200 euros a month.",
        "What do you think of that?",
        "Suppose it happens again, what is the biggest problem?",
        "What does that cost you?",
        "So if I understand you right, you want this?",
        "We can offer you our platform so that you save time.",
        "Shall we start next week?",
        "Better than your competitor.",
        "Tell me more.",
        "Well.",
        *QUESTIONS["en"].values(),
    ],
    "nl": [
        "Goedemorgen, mooi kantoor.",
        "Wij werken voor bedrijven zoals het uwe.",
        "Dat begrijp ik, dat moet lastig zijn.",
        "Het kost 200 euro per maand.",
        "Wat vindt u daarvan?",
        "Stel dat het nog eens gebeurt, wat is dan het grootste probleem?",
        "Wat kost u dat?",
        "Als ik u goed begrijp, wilt u dus dit?",
        "Wij kunnen u ons platform aanbieden zodat u tijd wint.",
        "Zullen we volgende week starten?",
        "Beter dan de concurrent.",
        "Vertelt u eens verder.",
        "Tja.",
        *QUESTIONS["nl"].values(),
    ],
    "he": [
        "שלום, משרד יפה.",
        "אני מבין, זה בטח קשה.",
        "מה דעתך?",
        "מה זה עולה לך?",
        "אם הבנתי נכון, אתה רוצה את זה?",
        "אנחנו יכולים להציע את המערכת שלנו.",
        "נתחיל בשבוע הבא?",
        *QUESTIONS["he"].values(),
    ],
}


def random_talk(scenario: Scenario, language: str, seed: int, turns: int = 60) -> list[Answer]:
    chance = random.Random(seed)
    method = method_of(scenario)
    customer = begin(scenario, method, seed)
    book = WORDS.book(language)
    answers: list[Answer] = []
    for _ in range(turns):
        uses = [use(chance.choice(method.techniques).id, chance.choice(list(Quality)))]
        customer.hear(uses, chance.choice(method.flow).id)
        words = chance.choice(SELLER[language])
        moment = Moment(scenario, customer, customer.next_attitude(), words, uses)
        answer = dialogue.reply(book, moment, customer.random())
        customer.memory = answer.memory
        answers.append(answer)
        if answer.ends:
            break
    return answers


@pytest.mark.parametrize(("scenario", "language"), TOLD, ids=TOLD_IDS)
def test_no_talk_says_a_line_twice_or_leaves_its_language_or_the_catalog(
    scenario: Scenario, language: str
) -> None:
    known = {attitude.id for attitude in method_of(scenario).attitudes}
    letters = "HEBREW" if language == "he" else "LATIN"
    for seed in range(12):
        answers = random_talk(scenario, language, seed)

        texts = [answer.text for answer in answers]
        assert len(set(texts)) == len(texts)
        assert all(0 < len(text) <= 600 and "{" not in text for text in texts)
        assert all(share_of_script(text, letters) > 0.9 for text in texts)
        assert {answer.attitude for answer in answers} <= known


def test_a_talk_is_the_same_again_with_the_same_seed() -> None:
    assert random_talk(DEFAULT, "nl", 3) == random_talk(DEFAULT, "nl", 3)


def test_different_seeds_give_different_talks() -> None:
    talks = {tuple(answer.text for answer in random_talk(DEFAULT, "en", seed)[:6]) for seed in range(8)}

    assert len(talks) >= 6


@pytest.mark.parametrize(("scenario", "language"), TOLD, ids=TOLD_IDS)
def test_the_customer_never_talks_about_selling_technique(scenario: Scenario, language: str) -> None:
    story = scenario.story(language)
    lines = [line for bucket in WORDS.book(language).lines.values() for line in bucket]
    lines += [line for told in story.facts.values() for line in told]
    lines += [*story.openings, *story.opinions, *story.pains, *story.impacts, *story.questions]
    spoken = set(same_words(" ".join(lines)).split())

    assert not spoken & {"techniek", "technique", "epic", "feedback", "rollenspel", "roleplay", "score"}


def test_the_customers_own_memory_is_not_touched_by_an_answer() -> None:
    talk = Talk()
    before = talk.customer.memory.copy()

    dialogue.reply(talk.book, Moment(DEFAULT, talk.customer, "H1", "What is your budget?"), talk.rng)

    assert talk.customer.memory == before


def test_the_opening_is_one_of_the_scenarios_own() -> None:
    talk = Talk("nl")
    answer = dialogue.open_talk(talk.book, Moment(DEFAULT, talk.customer, "H1", ""), talk.rng)

    assert answer.text in DEFAULT.story("nl").openings


# Drills

SCRIPT = Script(("Honestly, that is far too much for us.", "I cannot sell that to my partner."), "H7")


def drill(*qualities: Quality | None) -> list[Answer]:
    talk = Talk(phase=4)
    moment = Moment(DEFAULT, talk.customer, "H7", "", (), SCRIPT)
    opening = dialogue.open_talk(talk.book, moment, talk.rng)
    talk.customer.memory = opening.memory
    answers = [opening]
    for quality in qualities:
        uses = [use("4.2.4", quality)] if quality else []
        answers.append(talk.say("I see.", "H7", uses, SCRIPT))
        if answers[-1].ends:
            break
    return answers


def test_a_drill_begins_with_the_customers_own_words() -> None:
    answers = drill(Quality.GEMIST)

    assert [answer.text for answer in answers] == list(SCRIPT.lines)


def test_good_answers_end_a_drill_well_after_three_turns() -> None:
    answers = drill(Quality.GOED, Quality.PERFECT, Quality.GOED, Quality.GOED, Quality.GOED)

    assert len(answers) == 4
    assert answers[-1].ends and answers[-1].agrees
    assert answers[-1].attitude == "H1"


def test_poor_answers_end_a_drill_after_five_turns_without_a_yes() -> None:
    answers = drill(*[None] * 9)

    assert len(answers) == 6
    assert answers[-1].ends and not answers[-1].agrees
    assert len({answer.text for answer in answers}) == 6
    assert {answer.attitude for answer in answers} == {"H7"}
