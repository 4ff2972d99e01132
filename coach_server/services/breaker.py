"""A circuit breaker: stops asking a provider that does not answer, and asks again now and then.

    closed     faults in a row reach the limit,                    -> open for 5, then 10, then 15 s
               or a fault names its own waiting time
    open       the rest is over                                    -> half-open
    half-open  one call goes through: it succeeds                  -> closed
                                      it fails                     -> open, for longer

One breaker belongs to one provider and is shared by every conversation. It holds no lock and waits for
nothing: each method is a few comparisons on the injected clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from coach_server.clock import Clock
from coach_server.errors import ProviderError


class Unfit(ProviderError):
    """The model answered well, but not with something this call can use (a repeat, a step back)."""


class NotAsked(ProviderError):
    """The model was not asked. `degraded`: although it should have been (a cap, an open breaker)."""

    def __init__(self, message: str, *, degraded: bool = True) -> None:
        super().__init__(message)
        self.degraded = degraded


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """`allow()` before each call, then exactly one of `succeeded`, `failed`, `abandoned`. Times in seconds.

    A provider may ask for a longer rest (retry-after); it gets at most `obey_s`, so that a mad header cannot
    silence the model for a day.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        faults: int = 3,
        rest_s: float = 5.0,
        rest_max_s: float = 15.0,
        obey_s: float = 120.0,
    ) -> None:
        self._clock = clock
        self._limit = faults
        self._rest_s = rest_s
        self._rest_max_s = rest_max_s
        self._obey_s = obey_s
        self._faults = 0
        self._openings = 0
        self._open_until: float | None = None
        self._probe_until: float | None = None

    @property
    def state(self) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock.now() < self._open_until else BreakerState.HALF_OPEN

    @property
    def retry_at(self) -> float | None:
        """When the next probe may go (seconds since the epoch), None while closed."""
        return self._open_until

    def allow(self) -> bool:
        """Whether a call may go now. In half-open the first who asks gets the probe."""
        if self._open_until is None:
            return True
        now = self._clock.now()
        if now < self._open_until:
            return False
        if self._probe_until is not None and now < self._probe_until:
            return False
        # A probe whose outcome nobody reports must not keep the breaker open for ever.
        self._probe_until = now + self._rest_max_s
        return True

    def succeeded(self) -> None:
        self._faults = 0
        self._openings = 0
        self._open_until = None
        self._probe_until = None

    def failed(self, retry_after_s: float | None = None) -> None:
        self._faults += 1
        wait = min(retry_after_s or 0.0, self._obey_s)
        if self._open_until is None:
            if wait > 0 or self._faults >= self._limit:
                self._open(wait)
        elif self.state is BreakerState.HALF_OPEN:
            self._open(wait)
        else:
            # A call that had started before the opening: it may only ask for more patience.
            self._open_until = max(self._open_until, self._clock.now() + wait)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Round one call: raises NotAsked when the breaker is open, and reports how the call went."""
        if not self.allow():
            raise NotAsked("The model is resting after faults.")
        try:
            yield
        except Unfit:
            self.succeeded()
            raise
        except ProviderError as error:
            if isinstance(error, NotAsked):
                self.abandoned()
            else:
                self.failed(error.retry_after_s)
            raise
        except Exception:
            self.failed()
            raise
        except BaseException:
            self.abandoned()
            raise
        self.succeeded()

    def abandoned(self) -> None:
        """The call was cancelled by us; it says nothing about the provider."""
        self._probe_until = None

    def _open(self, wait: float) -> None:
        self._openings += 1
        rest = min(self._rest_s * self._openings, self._rest_max_s)
        self._open_until = self._clock.now() + max(rest, wait)
        self._probe_until = None
