from __future__ import annotations

import asyncio

import pytest

from coach_server.errors import ProviderError
from coach_server.services.breaker import Breaker, BreakerState, NotAsked, Unfit
from coach_server.testing import ManualClock


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    return Breaker(clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed()


def test_it_lets_everything_through_while_the_provider_answers(breaker: Breaker) -> None:
    assert all(breaker.allow() for _ in range(50))
    assert breaker.state is BreakerState.CLOSED


def test_three_faults_in_a_row_open_it(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.allow()

    breaker.failed()

    assert not breaker.allow()
    assert breaker.state is BreakerState.OPEN


def test_faults_with_a_success_between_them_do_not_open_it(breaker: Breaker) -> None:
    for _ in range(10):
        fail(breaker, 2)
        breaker.succeeded()

    assert breaker.state is BreakerState.CLOSED


async def test_after_a_rest_exactly_one_call_probes(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 3)
    await clock.advance(5)

    assert breaker.state is BreakerState.HALF_OPEN
    assert [breaker.allow() for _ in range(10)] == [True] + [False] * 9


async def test_it_closes_by_itself_when_the_probe_succeeds(clock: ManualClock, breaker: Breaker) -> None:
    fail(breaker, 3)
    await clock.advance(5)
    assert breaker.allow()

    breaker.succeeded()

    assert breaker.state is BreakerState.CLOSED
    assert breaker.allow()
    fail(breaker, 2)
    assert breaker.state is BreakerState.CLOSED


async def test_each_failed_probe_lengthens_the_rest_up_to_fifteen_seconds(
    clock: ManualClock, breaker: Breaker
) -> None:
    fail(breaker, 3)
    rests = []
    for _ in range(5):
        assert breaker.retry_at is not None
        rests.append(breaker.retry_at - clock.now())
        await clock.advance(rests[-1] - 0.01)
        assert not breaker.allow()
        await clock.advance(0.01)
        assert breaker.allow()
        breaker.failed()

    assert rests == pytest.approx([5, 10, 15, 15, 15])


async def test_a_named_waiting_time_is_obeyed_at_once(clock: ManualClock, breaker: Breaker) -> None:
    breaker.failed(retry_after_s=20)

    await clock.advance(19.9)
    assert not breaker.allow()
    await clock.advance(0.1)
    assert breaker.allow()


async def test_a_mad_waiting_time_is_not_obeyed_for_a_day(clock: ManualClock, breaker: Breaker) -> None:
    breaker.failed(retry_after_s=1e9)

    await clock.advance(120)

    assert breaker.allow()


def test_late_faults_of_calls_from_before_the_opening_do_not_lengthen_the_rest(
    clock: ManualClock, breaker: Breaker
) -> None:
    fail(breaker, 25)

    assert breaker.retry_at == pytest.approx(clock.now() + 5)


async def test_a_probe_that_was_cancelled_leaves_its_place_to_another(
    clock: ManualClock, breaker: Breaker
) -> None:
    fail(breaker, 3)
    await clock.advance(5)
    assert breaker.allow()

    breaker.abandoned()

    assert breaker.allow()


async def test_a_probe_that_nobody_reports_on_does_not_hold_the_place_for_ever(
    clock: ManualClock, breaker: Breaker
) -> None:
    fail(breaker, 3)
    await clock.advance(5)
    assert breaker.allow()

    await clock.advance(15)

    assert breaker.allow()


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (ProviderError(), BreakerState.OPEN),
        (ValueError(), BreakerState.OPEN),
        (TimeoutError(), BreakerState.OPEN),
        (Unfit(), BreakerState.CLOSED),
        (NotAsked("cap"), BreakerState.CLOSED),
        (asyncio.CancelledError(), BreakerState.CLOSED),
        (None, BreakerState.CLOSED),
    ],
    ids=repr,
)
def test_the_guard_reports_how_a_call_went(
    breaker: Breaker, error: BaseException | None, state: BreakerState
) -> None:
    fail(breaker, 2)

    try:
        with breaker.guard():
            if error:
                raise error
    except BaseException as raised:
        assert raised is error

    assert breaker.state is state


def test_a_call_that_was_never_made_forgives_nothing(breaker: Breaker) -> None:
    fail(breaker, 2)
    with pytest.raises(NotAsked), breaker.guard():
        raise NotAsked("cap")

    breaker.failed()

    assert breaker.state is BreakerState.OPEN


def test_the_guard_of_an_open_breaker_lets_nothing_run(breaker: Breaker) -> None:
    fail(breaker, 3)
    ran = False

    with pytest.raises(NotAsked) as refused, breaker.guard():
        ran = True

    assert refused.value.degraded
    assert not ran
