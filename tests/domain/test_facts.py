"""What a call tells, by the rules that ship with the server."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.facts import (
    KEYS,
    VALUE_CHARS,
    FactBook,
    FactRule,
    FactRules,
    collect,
    compile_pattern,
    plain,
    shorten,
)
from coach_server.domain.transcript import Speaker, Utterance
from coach_server.services.content import Content

BOOK = Content.load().facts
CUSTOMER, AGENT = Speaker.CUSTOMER, Speaker.AGENT


def told(text: str, language: str = "en", speaker: Speaker = CUSTOMER, **known: str) -> dict[str, str]:
    return BOOK.collect(known, Utterance(1, speaker, text, 0.0, 0.0), language)


@pytest.mark.parametrize(
    ("language", "text", "fact", "value"),
    [
        ("en", "You're speaking with Anna de Vries from Acme Foods.", "customer_name", "Anna de Vries"),
        ("en", "You're speaking with Anna de Vries from Acme Foods.", "company", "Acme Foods"),
        ("en", "Hello, Tom speaking.", "customer_name", "Tom"),
        ("en", "I’m the finance director at Brightline.", "company", "Brightline"),
        ("en", "Our depot is in Leeds.", "location", "Leeds"),
        ("en", "Our budget is about 20k a year.", "budget", "20k a year"),
        ("en", "We can spend £1,500 a month.", "budget", "£1,500 a month"),
        ("en", "We pay around £900 a month now.", "current_price", "£900 a month"),
        ("en", "We have about 45 drivers.", "team_size", "about 45 drivers"),
        ("en", "The contract runs until the end of March.", "timeline", "the end of March"),
        ("en", "Call me back on Tuesday at 10.", "preferred_time", "Tuesday at 10"),
        ("en", "Thursday afternoon works for me.", "preferred_time", "Thursday afternoon"),
        ("en", "We're with Staffline at the moment.", "supplier", "Staffline"),
        ("en", "It's a spreadsheet and it's all in Excel.", "supplier", "Excel"),
        ("en", "I need to discuss it with my business partner.", "decision_maker", "business partner"),
        ("en", "I decide that myself.", "decision_maker", "self"),
        ("en", "You can mail anna@acme.example for that.", "email_known", "yes"),
        ("en", "My number is 06 1234 5678.", "phone_known", "yes"),
        ("en", "We lose hours on planning, honestly.", "pain", "We lose hours on planning"),
        ("nl", "U spreekt met Anna de Vries van Bakkerij De Molen.", "customer_name", "Anna de Vries"),
        ("nl", "U spreekt met Anna de Vries van Bakkerij De Molen.", "company", "Bakkerij De Molen"),
        ("nl", "Met Anna van Dijk van Planvast, goedemorgen.", "customer_name", "Anna van Dijk"),
        ("nl", "Met Jan Jansen.", "customer_name", "Jan Jansen"),
        ("nl", "Ons magazijn staat in Den Bosch.", "location", "Den Bosch"),
        ("nl", "Ons budget ligt rond de 20.000 euro per jaar.", "budget", "20.000 euro per jaar"),
        ("nl", "We betalen nu ongeveer € 900 per maand.", "current_price", "€ 900 per maand"),
        ("nl", "We hebben zo'n 45 monteurs.", "team_size", "zo'n 45 monteurs"),
        ("nl", "Het contract loopt tot eind maart.", "timeline", "eind maart"),
        ("nl", "Bel me dinsdag om 10 uur maar terug.", "preferred_time", "dinsdag om 10 uur"),
        ("nl", "Donderdagmiddag schikt.", "preferred_time", "Donderdagmiddag"),
        ("nl", "We werken nu met Randzorg.", "supplier", "Randzorg"),
        ("nl", "De rest gaat via een groepsapp.", "supplier", "een groepsapp"),
        ("nl", "Dat moet ik overleggen met mijn compagnon.", "decision_maker", "compagnon"),
        ("nl", "Dat beslis ik zelf.", "decision_maker", "self"),
        ("nl", "We verliezen drie uur per week aan de planning, en niemand ziet dat.", "pain",
         "We verliezen drie uur per week aan de planning"),
        ("nl-BE", "We kunnen geen goede mensen vinden.", "pain", "We kunnen geen goede mensen vinden"),
        ("he", "קוראים לי דנה.", "customer_name", "דנה"),
        ("he", "יש לנו 40 עובדים.", "team_size", "40 עובדים"),
    ],
)  # fmt: skip
def test_what_is_told_is_known(language: str, text: str, fact: str, value: str) -> None:
    assert told(text, language)[fact] == value


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "Morning. I've got a few minutes, the vans have just gone out."),
        ("en", "This is great, I'm not sure about it."),
        ("en", "I'm Sorry, no."),
        ("en", "I'm not happy with Brightline."),
        ("en", "We used to work with Brightline."),
        ("en", "We are not with Staffline anymore."),
        ("en", "If we had fifty people it would be different."),
        ("en", "This is Sales, who are you looking for?"),
        ("en", "Is this Brightline?"),
        ("en", "How much is it?"),
        ("nl", "Met plezier."),
        ("nl", "Met Inkoop, goedemorgen."),
        ("nl", "Ik ben tevreden."),
        ("nl", "Wat kost het?"),
        ("nl", "Eerlijk gezegd hebben wij geen budget."),
        ("nl", "Ja hoor, als het niet al te lang duurt."),
        ("he", "אני לא בטוח."),
    ],
)
def test_a_careful_ear_hears_nothing_where_nothing_certain_was_told(language: str, text: str) -> None:
    assert told(text, language) == {}


@pytest.mark.parametrize(
    ("language", "text", "facts"),
    [
        (
            "en",
            "Good morning Daniel, this is Maya from Kestrel Routes.",
            {"customer_name": "Daniel", "agent_name": "Maya", "agent_company": "Kestrel Routes"},
        ),
        (
            "nl",
            "Goedemiddag mevrouw Van Dam, u spreekt met Karim Haddad van Zekerwerk.",
            {"customer_name": "mevrouw Van Dam", "agent_name": "Karim Haddad", "agent_company": "Zekerwerk"},
        ),
        (
            "nl",
            "Goedemorgen Robert, met Sanne van Planvast.",
            {"customer_name": "Robert", "agent_name": "Sanne"},
        ),
    ],
)
def test_an_introduction_names_both_sides(language: str, text: str, facts: dict[str, str]) -> None:
    assert told(text, language, AGENT) == facts


def test_what_the_agent_says_about_money_is_not_the_customers_budget() -> None:
    assert "budget" not in told("Our budget plan is 20k a year.", speaker=AGENT)
    assert "team_size" not in told("We have 45 engineers.", speaker=AGENT)


def test_the_latest_telling_wins_and_the_rest_stays() -> None:
    known = told("Our budget is 20k a year.", team_size="12 people")
    assert told("Actually our budget is 15k a year.", **known) == {
        "team_size": "12 people",
        "budget": "15k a year",
    }


def test_the_facts_given_are_not_changed() -> None:
    before = {"budget": "20k"}
    BOOK.collect(before, Utterance(1, CUSTOMER, "Our budget is 15k a year.", 0.0, 0.0), "en")
    assert before == {"budget": "20k"}


def test_a_language_without_rules_learns_nothing() -> None:
    assert told("Notre budget est de 20k.", "fr", pain="x") == {"pain": "x"}
    assert FactBook().collect({}, Utterance(1, CUSTOMER, "My name is Anna.", 0.0, 0.0), "en") == {}


@given(st.text(max_size=400), st.sampled_from(["en", "nl", "he"]), st.sampled_from(Speaker))
def test_any_text_gives_short_clean_values(text: str, language: str, speaker: Speaker) -> None:
    for fact, value in told(text, language, speaker).items():
        assert fact in KEYS
        assert 0 < len(value) <= VALUE_CHARS
        assert not set("[]{}\n\r\t\x00") & set(value)


@given(st.text(alphabet="my name is [Anna] {x}\n\x00\ud83d", max_size=120))
def test_plain_text_has_one_line_and_no_brackets(text: str) -> None:
    cleaned = plain(text)
    assert not set("[]{}\n\x00\ud83d") & set(cleaned)
    assert cleaned == " ".join(cleaned.split())


def test_a_value_is_cut_at_the_end_of_a_word() -> None:
    assert shorten("one two three", 9) == "one two"
    assert shorten("x" * 100, 80) == "x" * 80


def test_the_macro_keeps_its_case_and_the_words_round_it_do_not() -> None:
    pattern = compile_pattern("my name is {name}", {"name": "[A-Z][a-z]+"})
    assert pattern.search("MY NAME IS Anna")
    assert not pattern.search("my name is anna")
    with pytest.raises(ValueError, match="unknown macro"):
        compile_pattern("{nobody}", {})


def test_a_fixed_value_hides_what_was_captured() -> None:
    rules = FactRules((FactRule("email_known", (re.compile(r"\S+@\S+"),), value="yes"),))
    assert collect({}, Utterance(1, AGENT, "a@b.example", 0.0, 0.0), rules) == {"email_known": "yes"}
