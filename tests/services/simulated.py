"""A session with Karel of the catalog, as the database would give it, for tests of what follows a session."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from coach_server.domain.simulation.remarks import score_simulation
from coach_server.domain.simulation.scorecard import TalkRecord
from coach_server.domain.simulation.talk import (
    Direction,
    EventType,
    Mood,
    Outcome,
    Role,
    SessionEvent,
    Utterance,
)
from coach_server.services.simulation.datafiles import SessionRecord
from coach_server.services.simulation.personas import Personas
from coach_server.services.simulation.score_document import simulation_score_document
from coach_server.storage.simulations import Simulation

AVATAR, TRAINEE = Role.AVATAR, Role.TRAINEE
# 2024-10-27T10:00:00Z, as in the seed's example.
START = 1730023200.0

TALKS = {
    "en": (
        (AVATAR, "Hello. I've got ten minutes till my bus."),
        (TRAINEE, "Good afternoon, thank you for stopping. May I ask how old you are, and do you smoke?"),
        (AVATAR, "I'm forty-five, and I do, yes. Marlboro, the red ones."),
        (TRAINEE, "I understand. What do you like about them, and when do you usually smoke?"),
        (AVATAR, "That it tastes of tobacco. On the balcony with my coffee, then in the van between jobs."),
        (TRAINEE, "And what bothers you? Does the smell in the van bother you or your customers?"),
        (AVATAR, "Well, the van stinks, the customers notice. And my daughter opens the window."),
        (
            TRAINEE,
            "I can imagine. We have the glo Hyper X2: it heats real tobacco, 20 sessions a charge, no ash.",
        ),
        (AVATAR, "I had a puff of such a heater once, it tasted like burnt popcorn."),
        (
            TRAINEE,
            "That makes sense. The taste changed a lot, and the first pack of sticks would be free for you.",
        ),
        (AVATAR, "Hm, go on. And how do you clean a thing like that?"),
        (TRAINEE, "A small brush, one minute a week. Would you like to try it for a week?"),
        (AVATAR, "Well, all right, a week won't kill me."),
    ),
    "cs": (
        (AVATAR, "Dobrý den. Za deset minut mi jede autobus."),
        (TRAINEE, "Dobrý den, děkuji, že jste se zastavil. Kolik vám je let a kouříte?"),
        (AVATAR, "Je mi pětačtyřicet a kouřím, jasně. Červené Marlboro."),
        (TRAINEE, "Rozumím. Co vám na nich chutná a kdy kouříte nejčastěji?"),
        (AVATAR, "Že to chutná po tabáku. Na balkoně ke kafi, pak v dodávce mezi zakázkami."),
        (TRAINEE, "A co vám na tom vadí? Nevadí zákazníkům ten zápach v autě?"),
        (AVATAR, "No, dodávka smrdí, zákazníci si toho všímají. A dcera otvírá okno."),
        (TRAINEE, "Chápu. Máme glo Hyper X2, zahřívá opravdový tabák, vydrží 20 použití na jedno nabití."),
        (AVATAR, "Takovou věc jsem jednou zkusil a chutnalo to jako spálený popcorn."),
        (TRAINEE, "To dává smysl. Chuť se od té doby změnila a první krabička by byla zdarma."),
        (AVATAR, "Hm, povídejte. A jak se to čistí?"),
        (TRAINEE, "Kartáčkem, minutu týdně. Chtěl byste to týden vyzkoušet?"),
        (AVATAR, "No dobře, týden mě nezabije."),
    ),
    "he": (
        (AVATAR, "שלום. יש לי עשר דקות עד האוטובוס."),
        (TRAINEE, "צהריים טובים ותודה שעצרת. אפשר לשאול בן כמה אתה, ואם אתה מעשן?"),
        (AVATAR, "בן 45, וכן, אני מעשן. Marlboro אדום."),
        (TRAINEE, "אני מבין. מה אתה אוהב בהן, ומתי אתה מעשן בדרך כלל?"),
        (AVATAR, "שיש לזה טעם של טבק. במרפסת עם הקפה, ואחר כך ברכב בין העבודות."),
        (TRAINEE, "יש לנו את glo Hyper X2: הוא מחמם טבק אמיתי, 20 שימושים בטעינה אחת, בלי אפר."),
        (AVATAR, "ניסיתי פעם דבר כזה והיה לזה טעם של פופקורן שרוף."),
        (TRAINEE, "זה מובן. הטעם השתפר מאז. תרצה לנסות במשך שבוע?"),
        (AVATAR, "טוב, בסדר, שבוע לא יהרוג אותי."),
    ),
}
EVENTS = (
    SessionEvent(0.0, EventType.SYSTEM, "Session_Start"),
    SessionEvent(1.5, EventType.SYSTEM, "Persona_Loaded"),
    SessionEvent(31.0, EventType.DOB_CHECK, {"entered": "1979-05-12", "correct": True}),
    SessionEvent(96.2, EventType.VR_INTERACTION, {"interactedObject": "GLO_Device", "action": "PICKUP"}),
    SessionEvent(122.0, EventType.ERROR, {"errorType": "forbidden_word", "word": "free"}),
    SessionEvent(171.0, EventType.SYSTEM, "Session_End"),
)
MOODS = tuple(
    Mood(time, value, Direction.RISING)
    for time, value in ((30.0, 2.5), (58.0, 3.5), (84.0, 5.5), (112.0, 4.6), (138.0, 6.2), (165.0, 7.4))
)


@cache
def catalog() -> Personas:
    return Personas.load()


def said(*lines: tuple[Role, str]) -> tuple[Utterance, ...]:
    return tuple(
        Utterance(n, role, text, 2.0 + 13.0 * (n - 1), 12.0 + 13.0 * (n - 1))
        for n, (role, text) in enumerate(lines, 1)
    )


def talk_record(utterances: tuple[Utterance, ...], **changes: Any) -> TalkRecord:
    record = TalkRecord(
        utterances=utterances,
        events=EVENTS,
        initial=2.0,
        attitudes=tuple(mood.value for mood in MOODS),
        outcome=Outcome.CONVERTED,
        exchanges=sum(one.role is AVATAR for one in utterances),
    )
    return replace(record, **changes)


def row(**changes: Any) -> Simulation:
    one = Simulation(
        id="BAT-001",
        principal="key",
        trainee_id="REP_55",
        team_id="praha",
        scenario_id="fmc_resistant",
        persona_id="fmc_smoker",
        persona_name="Karel",
        language="en",
        created_at=START,
        last_seen_at=START,
        store_transcript=True,
        status="ended",
        outcome="converted",
        client="unity-vr",
        started_at=START,
        ended_at=START + 171.0,
        duration_ms=171_000,
        final_attitude=7,
    )
    return replace(one, **changes)


def session(language: str = "en", **changes: Any) -> SessionRecord:
    """A whole scored session in that language."""
    utterances = said(*TALKS[language])
    persona = catalog().persona("fmc_smoker")
    domain = catalog().domain(persona.domain)
    talk = talk_record(utterances)
    card = score_simulation(talk, persona, domain, language)
    score = simulation_score_document(card, None, talk, persona, domain, language)
    record = SessionRecord(row(language=language), utterances, EVENTS, MOODS, score)
    return replace(record, **changes)
