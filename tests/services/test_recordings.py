from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coach_server.domain.transcript import Speaker
from coach_server.errors import Invalid
from coach_server.services.recordings import MAX_PAUSE_MS, Turn, parse_recording, talking_ms

AGENT, CUSTOMER = Speaker.AGENT, Speaker.CUSTOMER


def test_plain_lines_become_turns_at_a_talking_pace() -> None:
    turns = parse_recording("call.txt", "Agent: Good morning.\n\n# a note\nCaller:  Who is this?\n")
    assert turns == [
        Turn(AGENT, "Good morning.", talking_ms("Good morning.")),
        Turn(CUSTOMER, "Who is this?", talking_ms("Who is this?")),
    ]


@pytest.mark.parametrize(
    ("who", "speaker"),
    [
        ("Agent", AGENT),
        ("SELLER", AGENT),
        ("Verkoper", AGENT),
        ("Customer", CUSTOMER),
        ("caller", CUSTOMER),
        ("Klant", CUSTOMER),
        ("Speaker", None),
        ("לקוח", CUSTOMER),
    ],
)
def test_speakers_are_known_by_the_names_people_use(who: str, speaker: Speaker | None) -> None:
    if speaker is None:
        with pytest.raises(Invalid, match=r"^call\.txt line 1: expected"):
            parse_recording("call.txt", f"{who}: hello")
    else:
        assert parse_recording("call.txt", f"{who}: hello")[0].speaker is speaker


def test_times_in_plain_text_give_the_pauses() -> None:
    text = (
        "[00:02] Agent: One.\n[00:05,5] Customer 1: Two.\n(1:00:00) Agent: Later.\n0:01 - Customer: Back.\n"
    )
    turns = parse_recording("call.txt", text)
    assert [t.pause_ms for t in turns[1:]] == [3500, MAX_PAUSE_MS, 0]
    assert [t.speaker for t in turns] == [AGENT, CUSTOMER, AGENT, CUSTOMER]


def test_a_colon_inside_what_was_said_stays_in_it() -> None:
    assert parse_recording("c.txt", "Agent: at 10:30: fine?")[0].text == "at 10:30: fine?"


def test_the_servers_own_transcript_can_be_played_again() -> None:
    body = {
        "segments": [
            {
                "sequence": 1,
                "segmentId": "a",
                "speaker": "agent",
                "text": "Hi",
                "timestamp": 1_700_000_000_000,
            },
            {
                "sequence": 2,
                "segmentId": "b",
                "speaker": "caller",
                "text": "Yes",
                "timestamp": 1_700_000_002_500,
            },
        ]
    }
    turns = parse_recording("transcript.json", json.dumps(body))
    assert [(t.speaker, t.text) for t in turns] == [(AGENT, "Hi"), (CUSTOMER, "Yes")]
    assert turns[1].pause_ms == 2500


def test_ndjson_skips_interim_segments_and_keeps_confidence() -> None:
    lines = [
        {"speaker": "agent", "text": "Good mor", "isFinal": False},
        {"speaker": "agent", "text": "Good morning", "isFinal": True, "confidence": 0.9, "pauseMs": 12},
    ]
    turns = parse_recording("c.ndjson", "\n\n".join(json.dumps(line) for line in lines))
    assert turns == [Turn(AGENT, "Good morning", 12, 0.9)]


@pytest.mark.parametrize(
    ("first", "second", "pause"),
    [
        (10, 12.25, 2250),
        ("00:10", "00:12.25", 2250),
        ("2026-01-02T10:00:00Z", "2026-01-02T10:00:02.250Z", 2250),
        (1_700_000_000_000, 1_700_000_002_250, 2250),
        (12, 10, 0),
    ],
    ids=["seconds", "clock", "iso", "epoch-ms", "clock-jumped-back"],
)
def test_times_are_read_in_every_usual_form(first: object, second: object, pause: int) -> None:
    turns = [
        {"speaker": "agent", "text": "a", "timestamp": first},
        {"speaker": "caller", "text": "b", "timestamp": second},
    ]
    assert parse_recording("c.json", json.dumps(turns))[1].pause_ms == pause


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("c.txt", "Agent: hello\nwho knows", "c.txt line 2: expected"),
        ("c.txt", "Agent:   ", "c.txt line 1: text must be a sentence"),
        ("c.txt", "\n\n", "c.txt: there is no turn in it"),
        ("c.ndjson", '{"speaker":"agent","text":"x"}\n{"speaker":', "c.ndjson line 2: not valid JSON"),
        ("c.ndjson", '{"speaker":"agent","text":"x"}\n\n[]', "c.ndjson line 3: expected an object"),
        ("c.ndjson", '{"speaker":"robot","text":"x"}', "c.ndjson line 1: speaker must be"),
        ("c.ndjson", '{"speaker":"agent","text":7}', "c.ndjson line 1: text must be"),
        ("c.json", '[\n{"speaker":"agent",\n"text":}]', "c.json line 3: not valid JSON"),
        ("c.json", "[" * 100_000, "c.json: the JSON holds a number too long or is nested too deep"),
        ("c.json", '{"a":1}', "c.json: expected a list of turns"),
        ("c.json", '{"turns":[{"speaker":"agent"}]}', "c.json turns[1]: text must be"),
        ("c.json", '[{"speaker":"agent","text":"x","confidence":7}]', "c.json entry[1]: confidence must"),
        ("c.json", '[{"speaker":"agent","text":"x","pause_ms":-1}]', "c.json entry[1]: pause_ms must"),
        ("c.json", '[{"speaker":"agent","text":"x","timestamp":"soon"}]', "c.json entry[1]: timestamp must"),
        ("c.json", '[{"speaker":"agent","text":"x","timestamp":NaN}]', "c.json entry[1]: timestamp must"),
        ("c.toml", "turn = [", "c.toml: not valid TOML: (at end of document)"),
        ("c.toml", '[[turn]]\nspeaker="agent"\ntext="a"\npause_ms="2"', "c.toml turn[1]: pause_ms must"),
    ],
)
def test_errors_name_the_place(name: str, text: str, place: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_recording(name, text)
    assert caught.value.message.startswith(place)


def test_errors_never_repeat_what_was_said() -> None:
    for name, text in [
        ("c.txt", "my secret plan"),
        ("c.toml", 'turn = my secret plan"'),
        ("c.json", "[my secret plan]"),
        ("c.ndjson", '{"speaker": "my secret plan", "text": "my secret plan"}'),
    ]:
        with pytest.raises(Invalid) as caught:
            parse_recording(name, text)
        assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ('{"speaker":"agent","text":"a"}\n{"speaker":"caller","text":"b"}', 2),
        ('[{"speaker":"agent","text":"a"}]', 1),
        ('{"turns":\n[{"speaker":"agent","text":"a"}]}', 1),
        ("[00:01] Agent: a\n[00:02] Customer: b", 2),
        ("\ufeffAgent: a", 1),
    ],
    ids=["ndjson", "list", "object", "timed-lines", "byte-order-mark"],
)
def test_a_file_without_a_known_ending_is_read_by_its_looks(text: str, count: int) -> None:
    assert len(parse_recording("call", text)) == count


@given(st.text(max_size=300), st.sampled_from(["c.txt", "c.json", "c.ndjson", "c.toml", "c"]))
def test_any_text_is_read_or_refused_by_name(text: str, name: str) -> None:
    try:
        assert parse_recording(name, text)
    except Invalid as error:
        assert error.message.startswith(name)
