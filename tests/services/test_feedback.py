from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coach_server.domain.method.methodology import SubScore, say
from coach_server.domain.method.turns import Turn
from coach_server.domain.practice.blending import JudgedHighlight, JudgedTechnique, ModelJudgement
from coach_server.domain.practice.scorecard import Evidence, Kind, ScoreCard
from coach_server.domain.transcript import Speaker
from coach_server.errors import ConfigError
from coach_server.paths import catalog
from coach_server.services.practice.feedback import (
    MOST_EVIDENCE,
    PreviousScores,
    TalkFrame,
    feedback_document,
    score_talk,
    without_words,
)
from coach_server.services.practice.feedback_wording import (
    feedback_wording,
    load_feedback_wordings,
    read_feedback_wording,
)
from tests.domain.talks import STARTED_AT, customer, hurried, method, opening, seller, talk, whole

SESSION = TalkFrame("s-1", STARTED_AT, STARTED_AT + 754, "completed")
SUB_SCORES = ["luisteren", "samenvatten", "objections", "nextStep"]


@pytest.fixture(autouse=True, scope="module")
def wording_is_read() -> None:
    """The server works this out in a thread; the tests here may do it on the loop once the files are read."""
    for language in ("en", "nl", "he", "fr"):
        feedback_wording(language)
    method()


def card_of(turns: Sequence[Turn], language: str = "nl", **changes: Any) -> ScoreCard:
    return score_talk(turns, method(), language=language, started_at=STARTED_AT, **changes)


def document(turns: Sequence[Turn], language: str = "nl", **changes: Any) -> dict[str, Any]:
    settings = {"session": SESSION} | changes
    return feedback_document(card_of(turns, language), turns, method(), language=language, **settings)


def test_the_document_has_the_seeds_keys_in_the_seeds_types() -> None:
    found = document(hurried())
    assert found["sessionId"] == "s-1"
    assert isinstance(found["overallScore"], int)
    assert list(found["subScores"]) == SUB_SCORES
    assert all(isinstance(value, int) for value in found["subScores"].values())
    assert all(set(h) >= {"type", "text"} for h in found["highlights"])
    assert {h["type"] for h in found["highlights"]} <= {"good", "warning"}
    assert found["advice"].strip()
    assert found["techniquesUsed"] == ["1.1", "2.1.1", "3.2", "3.3", "4.2.3"]
    assert all(0 <= value <= 100 for value in found["techniqueScores"].values())
    assert found["nextStepSuggestion"] == "2.1.8"
    assert found["sessionDuration"] == "12:34"
    assert found["completedAt"] == "2023-11-14T22:25:54Z"
    assert found["comparedToPrevious"] == {}


def test_the_document_is_json() -> None:
    assert json.loads(json.dumps(document(hurried()))) == document(hurried())


def test_the_document_says_by_which_method_it_judged() -> None:
    assert document(hurried())["method"] == {"id": "hugo", "version": method().version}


def test_a_call_has_the_same_document_under_its_own_names() -> None:
    found = document(hurried(), kind="call")
    assert found["conversationId"] == "s-1" and "sessionId" not in found
    assert {e["speaker"] for e in found["evidence"]} == {"agent", "caller"}
    assert {e["speaker"] for e in document(hurried())["evidence"]} == {"user", "hugo"}


def test_what_had_no_occasion_shows_the_overall_score_and_is_named() -> None:
    found = document(opening())
    assert found["notApplicable"] == ["samenvatten", "objections"]
    assert found["subScores"]["objections"] == found["overallScore"] == 100


def test_a_zero_is_a_score() -> None:
    turns = talk(
        customer("Het is te duur.", 4, "H7"),
        *(seller("We leveren ook in het blauw.", 4), customer("Tja.", 4, "H1")) * 3,
    )
    found = document(turns)
    assert found["overallScore"] is not None
    assert found["subScores"]["objections"] == 0
    assert "objections" not in found["notApplicable"]


def test_too_short_a_talk_has_no_scores_and_says_so() -> None:
    found = document(opening()[:3], previous=PreviousScores(70, {}))
    assert found["insufficient"] is True
    assert (found["overallScore"], found["delta"], found["band"]) == (None, None, None)
    assert found["subScores"] == dict.fromkeys(SUB_SCORES)
    assert (found["highlights"], found["evidence"], found["missedMoments"]) == ([], [], [])
    assert "te kort" in found["advice"]


def test_the_comparison_is_with_what_both_talks_have() -> None:
    before = PreviousScores(0, {SubScore.LUISTEREN: 50, SubScore.OBJECTIONS: 80})
    found = document(opening(), previous=before)
    assert found["delta"] == 100
    assert found["comparedToPrevious"]["overallScore"] == {"previous": 0, "current": 100, "delta": 100}
    assert set(found["comparedToPrevious"]) == {"overallScore", "luisteren"}


def test_a_first_talk_has_nothing_to_compare_with() -> None:
    assert document(opening())["delta"] is None


def test_a_previous_talk_that_was_too_short_gives_no_delta() -> None:
    assert document(opening(), previous=PreviousScores(None, {}))["delta"] is None


def test_what_is_beneath_a_step_counts_for_the_step() -> None:
    turns = [*opening()]
    turns += [seller("Wat is het budget?", 2, ("2.1.1.6", "perfect"), themes=("budget",))]
    found = document(talk(*turns))
    assert found["techniqueScores"]["2.1.1"] == 100
    assert found["details"] == {"2.1.1.6": 100}


def test_a_technique_that_did_not_come_off_was_not_used() -> None:
    found = document(opening("gemist"))
    assert found["techniquesUsed"] == []
    assert found["techniqueScores"] == {"1.1": 0, "1.2": 0, "1.3": 0, "1.4": 0}


def test_every_missed_moment_has_a_reason_a_better_question_and_words() -> None:
    found = document(hurried())["missedMoments"]
    assert [m["id"] for m in found][:1] == ["commit_gemist"]
    for moment in found:
        assert moment["name"] and moment["why"] and moment["better"]
        assert moment["customer"]["speaker"] == "hugo" and moment["customer"]["quote"]
        assert moment["seller"]["speaker"] == "user" and moment["seller"]["atMs"] > 0


def test_a_long_call_does_not_fill_pages_with_evidence() -> None:
    evidence = document(talk(*hurried() * 20))["evidence"]
    counts = Counter(found["criterion"] for found in evidence)
    assert max(counts.values()) == MOST_EVIDENCE


def test_the_metrics_have_their_parts() -> None:
    found = document(hurried())["metrics"]
    assert list(found) == ["structure", "attitudes", "balance", "impact"]
    assert list(found["balance"]["parts"]) == ["talk", "perspective", "questions", "echo"]


def test_the_band_is_wider_with_fewer_turns_and_without_a_model() -> None:
    short, long = document(opening())["band"], document(whole())["band"]
    judged = document(opening(), model=judgement())["band"]
    assert short > long > 0
    assert judged < short


@pytest.mark.parametrize("language", ["nl", "en", "he"])
@pytest.mark.parametrize("make", [opening, hurried, whole], ids=["opening", "hurried", "whole"])
def test_remarks_and_advice_are_in_the_talks_language_without_gaps(language: str, make: Any) -> None:
    found = document(make(), language)
    texts = [h[key] for h in found["highlights"] for key in ("text", "plain")] + [found["advice"]]
    assert len(found["highlights"]) >= 1
    assert all(text.strip() and "$" not in text for text in texts)
    if language == "he":
        assert all(any("א" <= c <= "ת" for c in text) for text in texts)


def test_a_remark_has_the_words_it_rests_on() -> None:
    warnings = [h for h in document(hurried())["highlights"] if h["type"] == "warning"]
    assert "Wij hebben een systeem dat alles automatisch plant" in warnings[0]["text"]
    assert "Wij hebben" not in warnings[0]["plain"]


def test_a_long_quote_is_shortened_in_a_sentence() -> None:
    turns = hurried()
    turns[4] = replace(turns[4], text="Wij hebben een systeem. " * 40)
    warning = next(h for h in document(turns)["highlights"] if h["type"] == "warning")
    assert len(warning["text"]) < 300


def test_a_technique_is_named_as_the_method_names_it() -> None:
    texts = " ".join(h["text"] for h in document(opening())["highlights"])
    assert any(say(step.name, "nl") in texts for step in method().steps_of(1))


def test_the_advice_after_a_perfect_talk_is_to_go_on() -> None:
    assert say(method().technique("2.1.1").name, "nl") in document(opening())["advice"]


def test_a_language_without_a_file_is_told_in_english_and_judged_without_english_words() -> None:
    found = document(hurried(), "fr")
    assert "Practise" in found["advice"]
    assert found["metrics"]["balance"]["parts"]["perspective"] is None


def judgement() -> ModelJudgement:
    said = Evidence("1.1", "Fijn dat u tijd maakt", Speaker.AGENT, 1, 10_000)
    return ModelJudgement(
        model="a-model",
        overall=40,
        sub_scores={SubScore.LUISTEREN: 40},
        techniques=(JudgedTechnique("1.1", 50, said),),
        highlights=(JudgedHighlight(Kind.GOOD, "Je zei „Fijn dat u tijd maakt”.", said),),
        advice="Zeg vaker „Fijn dat u tijd maakt”.",
        next_step="1.2",
    )


def test_a_models_judgement_moves_scores_and_gives_the_advice() -> None:
    found = document(opening(), model=judgement(), source="openai")
    assert found["source"] == "openai"
    assert 40 < found["overallScore"] < 100
    assert found["advice"].startswith("Zeg vaker")
    assert found["highlights"][0]["text"].startswith("Je zei")


def test_a_model_does_not_judge_what_had_no_occasion() -> None:
    assert "objections" in document(opening(), model=judgement())["notApplicable"]


@pytest.mark.parametrize("make", [opening, hurried, whole], ids=["opening", "hurried", "whole"])
def test_without_words_nothing_that_was_said_is_left(make: Any) -> None:
    turns = make()
    full, kept = document(turns), document(turns, keep_words=False)
    text = json.dumps(kept, ensure_ascii=False)
    assert not any(turn.text.rstrip("?.") in text for turn in turns)
    assert kept["overallScore"] == full["overallScore"]
    assert kept["techniqueScores"] == full["techniqueScores"]
    assert len(kept["highlights"]) == len(full["highlights"])
    assert [e["sequence"] for e in kept["evidence"]] == [e["sequence"] for e in full["evidence"]]
    assert {e["quote"] for e in kept["evidence"]} <= {None}


def test_taking_the_words_out_later_is_the_same_as_never_keeping_them() -> None:
    assert without_words(document(hurried())) == document(hurried(), keep_words=False)
    assert without_words(without_words(document(hurried()))) == document(hurried(), keep_words=False)


def test_a_models_remarks_may_repeat_what_was_said_and_go_with_the_words() -> None:
    kept = without_words(document(opening(), model=judgement()))
    assert "Fijn dat u tijd maakt" not in json.dumps(kept, ensure_ascii=False)
    assert kept["advice"] == document(opening())["advice"]


def test_a_stored_document_read_back_loses_its_words_all_the_same() -> None:
    stored = json.loads(json.dumps(document(hurried())))
    assert without_words(stored) == document(hurried(), keep_words=False)


def test_a_talk_that_is_not_over_has_no_end() -> None:
    found = document(opening(), session=TalkFrame("s-1", STARTED_AT, None, "recording"))
    assert (found["completedAt"], found["sessionDuration"]) == (None, "00:00")


# --- the wording files


def test_every_language_has_every_sentence_and_word_list() -> None:
    known = load_feedback_wordings()
    assert set(known) == {"en", "nl", "he"}
    for wording in known.values():
        assert wording.words.you and wording.words.we and wording.words.stop and wording.words.pain
        assert not wording.words.you & wording.words.we


def test_every_missed_moment_rests_on_words_in_the_remark_where_there_are_any() -> None:
    for wording in load_feedback_wordings().values():
        for kind in method().missed:
            assert wording.remarks[Kind.WARNING][kind.rule].quoted is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace("[good.echo]", "[good.ekko]"), "good.ekko"),
        (lambda s: s.replace("[warning.forbidden]\ntext", "[warning.forbidden]\nteks"), "warning.forbidden"),
        (lambda s: s.replace("$count of the $of", "$count of the $total"), "good.themes.text"),
        (lambda s: s.replace("$percent% of the", "$ of the", 1), "good.room.text"),
        (lambda s: s.replace('next = "Go on', 'nxt = "Go on'), "advice.nxt"),
        (lambda s: s.replace('"(?<!no )problems?"', '"problems(?"'), "words.pain"),
        (lambda s: s.replace("[words]\nyou = ", "[words]\nyu = "), "words.yu"),
        (lambda s: s + "\n[extra]\na = 1\n", "extra"),
    ],
    ids=["key", "text", "placeholder", "bare dollar", "advice", "pattern", "list", "table"],
)
def test_a_mistake_in_a_file_is_told_with_file_and_field(tmp_path: Path, change: Any, message: str) -> None:
    source = (catalog() / "feedback" / "en.toml").read_text(encoding="utf-8")
    assert change(source) != source
    (tmp_path / "en.toml").write_text(change(source), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        read_feedback_wording(tmp_path / "en.toml")
    assert "en.toml" in refused.value.message and message in refused.value.message


def test_without_english_there_is_nothing_to_fall_back_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="en.toml"):
        load_feedback_wordings(tmp_path)


@pytest.mark.parametrize(
    ("language", "told", "not_told"),
    [
        ("nl", "We verliezen uren aan de planning.", "We zijn met zes."),
        ("en", "We lose hours on the planning every week.", "There are six of us."),
        ("he", "יש לנו בעיה עם התכנון.", "אנחנו שישה."),
        ("nl", "Er zijn elke week klachten.", "Geen probleem, als het niet al te lang duurt."),
        ("en", "It's chaos, honestly.", "No problem, it does not take too long."),
        ("he", "יש הרבה תלונות.", "אין בעיה."),
    ],
)
def test_a_problem_is_heard_in_every_language(language: str, told: str, not_told: str) -> None:
    pain = feedback_wording(language).words.pain
    assert pain is not None and pain.search(told.lower()) and not pain.search(not_told.lower())
