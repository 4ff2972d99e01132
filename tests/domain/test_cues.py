from __future__ import annotations

import pytest

from coach_server import paths
from coach_server.domain.cuefile import parse_cues
from coach_server.domain.cues import Cues, words_of
from coach_server.domain.detection import Objection, Signal
from coach_server.domain.language import guess_language
from coach_server.domain.reading import read
from coach_server.domain.tip import Stage
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError

LANGUAGES = ("en", "nl", "he")
LISTS = """
language = "xx"
[words]
negators = ["not"]
negators_behind = []
not_negating = ["only"]
fillers = ["well"]
yes = ["yes"]
no = ["no"]
open_words = ["what"]
open_inversions = []
open_requests = []
closed_starts = []
tags = []
"""


@pytest.fixture(scope="module")
def cues() -> dict[str, Cues]:
    folder = paths.catalog() / "cues"
    return {name: parse_cues((folder / f"{name}.toml").read_text("utf-8"), name) for name in LANGUAGES}


def one_cue(*patterns: str, **fields: str) -> Cues:
    extra = "\n".join(f"{name} = {value}" for name, value in fields.items())
    listed = ", ".join(f'"{p}"' for p in patterns)
    return parse_cues(f'{LISTS}\n[[cue]]\nfinds = "price"\nany = [{listed}]\n{extra}\n', "xx.toml")


def quotes(cues: Cues, text: str) -> list[str]:
    return [f.quote for f in cues.find(words_of(text), Speaker.CUSTOMER)]


@pytest.mark.parametrize(
    ("pattern", "text", "quote"),
    [
        ("too dear", "That's Too  dear!", "Too  dear"),
        ("too dear", "too, dear", "too, dear"),
        ("expens*", "what an EXPENSIVE toy", "EXPENSIVE"),
        ("no ~ money", "there is no room for that money", "no room for that money"),
        ("too (darn|) dear", "it is too dear", "too dear"),
        ("(cannot|can not) pay", "we can not pay", "can not pay"),
        ("don't pay", "we don’t pay", "don’t pay"),
        ("dont pay", "we don't pay", "don't pay"),
        ("cafe", "het café hier", "café"),
        ("we are in $", "then we are in. Bye", "we are in"),
    ],
)
def test_a_pattern_finds_its_words_and_quotes_them_exactly(pattern: str, text: str, quote: str) -> None:
    assert quotes(one_cue(pattern), text) == [quote]


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("dear", "my dearest"),
        ("too dear", "it is too. Dear John"),
        ("no ~ money", "no we do have quite a lot of money"),
        ("no ~ money", "no. We have money"),
        ("we are in $", "we are in the middle of it"),
        ("dear", "it is not dear"),
        ("dear", "it is not that dear"),
    ],
)
def test_a_pattern_leaves_other_words_alone(pattern: str, text: str) -> None:
    assert quotes(one_cue(pattern), text) == []


def test_a_negator_before_a_comma_or_followed_by_only_does_not_cancel() -> None:
    assert quotes(one_cue("dear"), "certainly not, dear it is") == ["dear"]
    assert quotes(one_cue("dear"), "not only dear but slow") == ["dear"]


def test_unless_silences_its_cue() -> None:
    assert quotes(one_cue("dear", unless='["dear sir"]'), "Dear sir, very dear") == []


def test_a_cue_of_the_other_speaker_stays_silent() -> None:
    sellers = one_cue("dear", speaker='"seller"')
    assert quotes(sellers, "dear") == []
    assert sellers.find(words_of("dear"), Speaker.AGENT)[0].quote == "dear"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('any = ["a (b"]', "line 18: pattern \"a (b\": a '(' without its ')'"),
        ('any = ["a) b"]', "a ')' too many"),
        ('any = ["ab*"]', "three letters"),
        ('any = ["~ a"]', "begins with"),
        ('any = ["(a|)"]', "nothing at all"),
        ("any = []", "line 16: any: at least one pattern"),
        ('any = ["a"]\nstrength = 2', "line 16: strength"),
        ('any = ["a"]\nspeaker = "boss"', "'boss' is none of customer, seller, any"),
        ('any = ["a"]\nnegate = true', "line 19: 'negate' is unknown"),
    ],
)
def test_a_wrong_cue_file_is_refused_with_file_and_line(change: str, message: str) -> None:
    source = f'{LISTS}\n[[cue]]\nfinds = "price"\n{change}\n'
    with pytest.raises(ConfigError) as caught:
        parse_cues(source, "xx.toml")
    assert caught.value.message.startswith("xx.toml, line ")
    assert message in caught.value.message


def test_an_unknown_finding_a_missing_list_and_broken_toml_are_refused() -> None:
    with pytest.raises(ConfigError, match="line 16: finds: 'prize'"):
        parse_cues(f'{LISTS}\n[[cue]]\nfinds = "prize"\nany = ["a"]\n', "xx.toml")
    with pytest.raises(ConfigError, match="words.tags is missing"):
        parse_cues(LISTS.replace("tags = []", ""), "xx.toml")
    with pytest.raises(ConfigError, match=r"xx\.toml: .*line 1"):
        parse_cues("language = \n[words]\n", "xx.toml")


@pytest.mark.parametrize(
    ("language", "text", "objections"),
    [
        ("en", "honestly that is way too expensive for us", ["price"]),
        ("en", "It's not too expensive.", []),
        ("en", "I have to run it by my business partner first", ["authority"]),
        ("en", "What if it goes wrong and we lose our data?", ["fear"]),
        ("en", "we already work with another agency", ["competitor"]),
        ("en", "I've never heard of your company", ["trust"]),
        ("en", "We work with forty people in two shifts.", []),
        ("nl", "Dat is me echt veel te duur.", ["price"]),
        ("nl", "te duur vind ik het niet", []),
        ("nl", "Dat moet ik eerst met mijn compagnon overleggen.", ["authority"]),
        ("nl", "We werken met een man of veertig.", []),
        ("nl", "ik heb nog nooit van jullie gehoord", ["trust"]),
        ("he", "סליחה אבל זה פשוט יקר מדי", ["price"]),
        ("he", "זה לא יקר מדי", []),
        ("he", "אני צריך להתייעץ עם הבוס שלי", ["authority"]),
    ],
)
def test_rules_see_a_customers_objection(
    cues: dict[str, Cues], language: str, text: str, objections: list[str]
) -> None:
    found = read(cues[language], text, Speaker.CUSTOMER)
    assert found.objections == tuple(Objection(name) for name in objections)
    for name in objections:
        assert found.evidence is not None
        assert found.evidence[name] in text


@pytest.mark.parametrize(
    ("language", "text", "objection"),
    [
        ("en", "we can't afford that", "price"),
        ("en", "what's your best price", "price"),
        ("en", "Money is tight this year.", "price"),
        ("en", "there's too much going on right now", "timing"),
        ("en", "The renewal isn't due until autumn.", "timing"),
        ("en", "that sounds too good to be true", "trust"),
        ("en", "We had a bad experience with you before.", "trust"),
        ("en", "I'll believe it when I see it.", "trust"),
        ("en", "no need thanks", "need"),
        ("en", "There's really no need.", "need"),
        ("en", "we're happy as we are", "need"),
        ("en", "we already work with Hays", "competitor"),
        ("en", "Why should I choose you over them?", "competitor"),
        ("en", "I have to ask my boss", "authority"),
        ("en", "It isn't up to me.", "authority"),
        ("en", "what if it all goes wrong", "fear"),
        ("en", "I don't want to be a guinea pig.", "fear"),
        ("nl", "dat kunnen we niet betalen", "price"),
        ("nl", "Het is me het geld niet waard.", "price"),
        ("nl", "momenteel even niet", "timing"),
        ("nl", "Dit kan er nu niet bij.", "timing"),
        ("nl", "dat is te mooi om waar te zijn", "trust"),
        ("nl", "Wij hebben geen goede ervaringen met zulke bureaus.", "trust"),
        ("nl", "niet nodig hoor", "need"),
        ("nl", "Voor mij hoeft dat niet.", "need"),
        ("nl", "we werken al met een ander bureau", "competitor"),
        ("nl", "Ik heb al iemand die dat doet.", "competitor"),
        ("nl", "dat moet ik aan mijn baas vragen", "authority"),
        ("nl", "Daar moet ik het thuis over hebben.", "authority"),
        ("nl", "wat als het misgaat", "fear"),
        ("nl", "Straks zitten we zonder telefoon.", "fear"),
        ("he", "אין לנו כסף בשביל זה", "price"),
        ("he", "אחרי החגים", "timing"),
        ("he", "הייתה לי חוויה רעה", "trust"),
        ("he", "לא צריך תודה", "need"),
        ("he", "אנחנו כבר עובדים עם מישהו", "competitor"),
        ("he", "אני צריך לשאול את המנהל", "authority"),
        ("he", "מה אם זה ישתבש", "fear"),
    ],
)
def test_plain_wording_names_its_objection(
    cues: dict[str, Cues], language: str, text: str, objection: str
) -> None:
    assert Objection(objection) in read(cues[language], text, Speaker.CUSTOMER).objections


@pytest.mark.parametrize(
    ("language", "text", "signal"),
    [
        ("en", "I'm not interested.", Signal.REFUSAL),
        ("en", "we've no interest in that", Signal.REFUSAL),
        ("en", "please don't call here again", Signal.REFUSAL),
        ("en", "I'd like to think it over.", Signal.POSTPONE),
        ("en", "Call me back in the new year.", Signal.POSTPONE),
        ("nl", "daar heb ik geen belangstelling voor", Signal.REFUSAL),
        ("nl", "We willen niet meer gebeld worden.", Signal.REFUSAL),
        ("nl", "ik wil er nog even over nadenken", Signal.POSTPONE),
        ("he", "אני לא מעוניין", Signal.REFUSAL),
        ("he", "אין לנו עניין בזה", Signal.REFUSAL),
    ],
)
def test_plain_wording_names_its_signal(
    cues: dict[str, Cues], language: str, text: str, signal: Signal
) -> None:
    assert signal in read(cues[language], text, Speaker.CUSTOMER).signals


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Twelve electricians, about thirty jobs a week."),
        ("en", "We pay four hundred a month today."),
        ("en", "That account was worth fifty thousand a year."),
        ("en", "In spring we're quiet, in December it's eighty a day."),
        ("en", "The supplier delivers on Tuesdays."),
        ("en", "There's no need to rush."),
        ("en", "I'm not afraid of that."),
        ("en", "It's not that I'm not interested."),
        ("en", "Our competitors are mostly abroad."),
        ("en", "Thanks for your time, bye bye, have a nice day."),
        ("en", "See you on Thursday at two then."),
        ("nl", "Vijftien schilders, ongeveer twintig klussen per week."),
        ("nl", "We betalen nu driehonderd euro per maand."),
        ("nl", "In de zomer tachtig, in december zestig."),
        ("nl", "Voor de telefonie zitten we bij KPN."),
        ("nl", "Mijn vrouw doet de boekhouding."),
        ("nl", "Onze concurrenten zitten in België."),
        ("nl", "Daar ben ik niet bang voor."),
        ("nl", "Nou, dag hoor, tot de volgende keer."),
        ("nl", "Oké, doei doei."),
        ("he", "אנחנו משלמים היום שמונה מאות בחודש"),
        ("he", "תודה רבה, יום טוב."),
    ],
)
def test_neutral_answers_with_telling_words_stay_clean(
    cues: dict[str, Cues], language: str, text: str
) -> None:
    found = read(cues[language], text, Speaker.CUSTOMER)
    assert found.objections == ()
    assert {Signal.REFUSAL, Signal.POSTPONE, Signal.PAIN, Signal.BUYING}.isdisjoint(found.signals)


@pytest.mark.parametrize(
    ("language", "text", "kind"),
    [
        ("en", "so how do you currently plan your rounds", Signal.QUESTION_OPEN),
        ("en", "Could you tell me more about that?", Signal.QUESTION_OPEN),
        ("en", "thanks for that tell me about your team", Signal.QUESTION_OPEN),
        ("en", "do you use excel for that", Signal.QUESTION_CLOSED),
        ("en", "And you do that yourself?", Signal.QUESTION_CLOSED),
        ("en", "what we do is simple.", None),
        ("en", "We use Excel for that.", None),
        ("nl", "hoe regelen jullie dat nu", Signal.QUESTION_OPEN),
        ("nl", "Kunt u daar iets meer over vertellen?", Signal.QUESTION_OPEN),
        ("nl", "gebruiken jullie nog excel", Signal.QUESTION_CLOSED),
        ("nl", "Dus u doet dat zelf?", Signal.QUESTION_CLOSED),
        ("nl", "Wat wij doen is heel eenvoudig.", None),
        ("he", "איך אתם עושים את זה היום", Signal.QUESTION_OPEN),
        ("he", "יש לכם מערכת בשביל זה?", Signal.QUESTION_CLOSED),
    ],
)
def test_questions_are_told_open_from_closed_with_or_without_a_mark(
    cues: dict[str, Cues], language: str, text: str, kind: Signal | None
) -> None:
    asked = {Signal.QUESTION_OPEN, Signal.QUESTION_CLOSED}
    found = asked & set(read(cues[language], text, Speaker.AGENT).signals)
    assert found == ({kind} if kind else set())


@pytest.mark.parametrize(
    ("language", "asked", "answer", "objections", "signals"),
    [
        ("en", "Would you be interested in a demo?", "No, not really.", [], ["refusal"]),
        ("en", "Do you have any other questions?", "No, not really.", [], []),
        ("en", "Would that be useful for you?", "Not really.", ["need"], []),
        ("en", "Shall I put the order through?", "Yes, sure.", [], ["buying"]),
        ("en", "How many people work there?", "No, not really.", [], []),
        ("nl", "Zullen we een afspraak maken?", "Nee, liever niet.", [], ["refusal"]),
        ("nl", "Heeft u verder nog vragen?", "Nee hoor.", [], []),
        ("nl", "Zal ik de bestelling doorzetten?", "Ja graag.", [], ["buying"]),
    ],
)
def test_a_bare_answer_means_what_was_asked(
    cues: dict[str, Cues], language: str, asked: str, answer: str, objections: list[str], signals: list[str]
) -> None:
    found = read(cues[language], answer, Speaker.CUSTOMER, (asked,))
    got = [s for s in found.signals if s in (Signal.BUYING, Signal.REFUSAL)]
    assert ([str(o) for o in found.objections], [str(s) for s in got]) == (objections, signals)


def test_a_seller_who_repeats_an_objection_does_not_object(cues: dict[str, Cues]) -> None:
    found = read(cues["en"], "I understand that you find it too expensive.", Speaker.AGENT)
    assert found.objections == ()
    assert found.stage is Stage.OBJECTION_HANDLING


def test_what_the_agent_says_after_an_objection_handles_it(cues: dict[str, Cues]) -> None:
    text = "Then let us put both side by side."
    assert read(cues["en"], text, Speaker.AGENT).stage is None
    found = read(cues["en"], text, Speaker.AGENT, ("That's too expensive for us.",))
    assert found.stage is Stage.OBJECTION_HANDLING


@pytest.mark.parametrize("text", ["", "   ", "...", "?!", "\x00", "😀"])
def test_text_without_words_says_nothing(cues: dict[str, Cues], text: str) -> None:
    found = read(cues["nl"], text, Speaker.CUSTOMER)
    assert (found.stage, found.objections, found.signals) == (None, (), ())


def test_every_quote_is_a_piece_of_the_text(cues: dict[str, Cues]) -> None:
    text = "Nou — dat is te dúúr, zeg; ik moet 't éérst met m'n vrouw bespreken… bel me volgende week terug!"
    found = read(cues["nl"], text, Speaker.CUSTOMER)
    assert found.evidence
    assert all(quote in text for quote in found.evidence.values())


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("that is too expensive for us", "en"),
        ("dat is te duur voor ons", "nl"),
        ("זה יקר מדי", "he"),
        ("nee hoor, niet echt", "nl"),
        ("Microsoft אני משתמש ב Excel כבר שנים רבות", "he"),
        ("12345", "nl"),
    ],
)
def test_the_language_of_a_short_sentence_is_guessed(text: str, language: str) -> None:
    assert guess_language(text, default="nl") == language
