"""Handing a session to the outside API: signed, once, again when it may help, and its state is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
from loguru import logger

from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.export import Parcel
from coach_server.providers.export.batman import Batman
from coach_server.services.simulation.exports import SimulationExports
from coach_server.storage import simulation_scores
from coach_server.storage.database import Database
from coach_server.storage.simulation_scores import Export
from coach_server.testing import ManualClock
from tests.fakes.batman import TOKEN, FakeBatman
from tests.services.simulated import START
from tests.services.test_datafiles import SEED_SESSION, kept, seeds_session

PARCEL = Parcel("export-1", "BAT-001", b'{"session": {"sessionId": "BAT-001"}}')
PAYLOAD = {"exportId": "export-1", "sessionId": "BAT-001"}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START + 600)


@pytest.fixture
async def fake(clock: ManualClock) -> AsyncIterator[FakeBatman]:
    async with FakeBatman(clock) as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def batman(fake: FakeBatman, http: aiohttp.ClientSession, clock: ManualClock) -> Batman:
    return Batman(fake.url, TOKEN, http, clock)


@pytest.fixture
async def exports(database: Database, batman: Batman, clock: ManualClock) -> SimulationExports:
    await kept(database, seeds_session())
    async with database.transaction() as conn:
        await simulation_scores.add_export(conn, Export("export-1", "BAT-001", clock.now()))
    return SimulationExports(database, batman, clock)


async def state(database: Database) -> Export:
    async with database.read() as conn:
        found = await simulation_scores.export(conn, "export-1")
    assert found is not None
    return found


# --- the wire


@pytest.mark.parametrize("auth", [TOKEN, f"Bearer {TOKEN}", f"  Bearer {TOKEN} "])
async def test_a_session_is_taken_with_token_time_and_signature(
    fake: FakeBatman, http: aiohttp.ClientSession, clock: ManualClock, auth: str
) -> None:
    await Batman(fake.url, auth, http, clock).send(PARCEL)

    assert fake.taken == {"export-1": {"session": {"sessionId": "BAT-001"}}}


async def test_a_receiver_that_took_it_already_knows_it_by_its_key(fake: FakeBatman, batman: Batman) -> None:
    fake.lose_answer = True
    with pytest.raises(ProviderError) as caught:
        await batman.send(PARCEL)
    assert caught.value.retryable

    await batman.send(PARCEL)

    assert fake.seen == 2 and list(fake.taken) == ["export-1"]


async def test_a_wrong_token_is_refused_for_good(
    fake: FakeBatman, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    with pytest.raises(ProviderError) as caught:
        await Batman(fake.url, "other", http, clock).send(PARCEL)
    assert not caught.value.retryable and fake.taken == {}


async def test_an_old_time_is_refused(fake: FakeBatman, http: aiohttp.ClientSession) -> None:
    with pytest.raises(ProviderError):
        await Batman(fake.url, TOKEN, http, ManualClock(START)).send(PARCEL)
    assert fake.taken == {}


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (400, False),
        (404, False),
        (409, False),
        (302, False),
        (408, True),
        (429, True),
        (500, True),
        (503, True),
    ],
)
async def test_the_status_says_whether_another_try_may_help(
    fake: FakeBatman, batman: Batman, status: int, retryable: bool
) -> None:
    fake.answers.append((status, None))

    with pytest.raises(ProviderError) as caught:
        await batman.send(PARCEL)
    assert caught.value.retryable is retryable and fake.seen == 1


@pytest.mark.parametrize(
    ("told", "wait"), [("12", 12.0), ("nan", None), ("Wed, 21 Oct 2026", None), ("1e9", 3600.0), ("-4", 0.0)]
)
async def test_how_long_to_wait_is_heard_within_bounds(
    fake: FakeBatman, batman: Batman, told: str, wait: float | None
) -> None:
    fake.answers.append((503, told))

    with pytest.raises(ProviderError) as caught:
        await batman.send(PARCEL)
    assert caught.value.retry_after_s == wait


async def test_a_receiver_that_says_nothing_may_be_asked_again(
    fake: FakeBatman, http: aiohttp.ClientSession, clock: ManualClock
) -> None:
    fake.hang = True

    with pytest.raises(ProviderTimeout) as caught:
        await Batman(fake.url, TOKEN, http, clock, timeout_s=0.1).send(PARCEL)
    assert caught.value.retryable


# --- the job


async def test_the_job_sends_what_the_files_hold_and_notes_it(
    database: Database, fake: FakeBatman, exports: SimulationExports, clock: ManualClock
) -> None:
    await exports.run(PAYLOAD)

    body = fake.taken["export-1"]
    assert body["exportId"] == "export-1" and body["session"] == SEED_SESSION
    assert len(body["events"]) == 8 and len(body["transcript"]) == 4
    assert await state(database) == Export(
        "export-1", "BAT-001", clock.now(), "sent", attempts=1, sent_at=clock.now()
    )


async def test_what_was_sent_is_not_sent_again(fake: FakeBatman, exports: SimulationExports) -> None:
    await exports.run(PAYLOAD)
    await exports.run(PAYLOAD)

    assert fake.seen == 1


async def test_a_fault_that_may_pass_leaves_the_export_pending_and_the_next_run_sends_it(
    database: Database, fake: FakeBatman, exports: SimulationExports
) -> None:
    fake.answers.append((503, None))
    with pytest.raises(ProviderError):
        await exports.run(PAYLOAD)
    after_fault = await state(database)

    await exports.run(PAYLOAD)

    assert (after_fault.status, after_fault.attempts, after_fault.error_code) == (
        "pending",
        1,
        "PROVIDER_FAILED",
    )
    done = await state(database)
    assert (done.status, done.attempts, done.error_code) == ("sent", 2, None)


async def test_a_refusal_is_final(database: Database, fake: FakeBatman, exports: SimulationExports) -> None:
    fake.answers.append((422, None))

    with pytest.raises(ProviderError) as caught:
        await exports.run(PAYLOAD)

    assert not caught.value.retryable
    assert (await state(database)).status == "failed"


async def test_an_export_that_was_tried_too_often_has_failed(
    database: Database, fake: FakeBatman, exports: SimulationExports
) -> None:
    fake.answers.append((503, None))
    with pytest.raises(ProviderError):
        await exports.run(PAYLOAD)

    await exports.given_up(PAYLOAD)

    found = await state(database)
    assert (found.status, found.error_code) == ("failed", "PROVIDER_FAILED")


async def test_an_export_of_a_session_that_was_erased_does_nothing(
    fake: FakeBatman, exports: SimulationExports
) -> None:
    await exports.run({"exportId": "gone", "sessionId": "BAT-001"})
    assert fake.seen == 0


async def test_nothing_that_was_said_and_no_token_is_logged(
    fake: FakeBatman, exports: SimulationExports
) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="TRACE", format="{message} {extra}")
    try:
        fake.answers.append((422, None))
        with pytest.raises(ProviderError):
            await exports.run(PAYLOAD)
        await exports.run(PAYLOAD)
    finally:
        logger.remove(sink)
    assert lines
    assert not any(word in line for line in lines for word in ("Marlboro", "GLO Hyper", TOKEN))
