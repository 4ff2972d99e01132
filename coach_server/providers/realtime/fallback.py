"""One realtime model after another: the first that answers in time carries the talk."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from loguru import logger

from coach_server.errors import ProviderError, ProviderTimeout
from coach_server.providers.realtime import Connection, RealtimeModel, RealtimeSpec

CONNECT_S = 6.0


class FallbackRealtime:
    """`models` in the order of preference, each with a limit of its own. `connection.provider` says which it
    was. A line that is lost for good in the middle of a talk is the owner's to open again, with `prior`."""

    name = "fallback"

    def __init__(self, models: Sequence[RealtimeModel], *, connect_s: float = CONNECT_S) -> None:
        self._models = tuple(models)
        self._connect_s = connect_s

    async def connect(self, spec: RealtimeSpec) -> Connection:
        """Raises the last model's ProviderError when none answers."""
        error = ProviderError("There is no speech model on this server.")
        for model in self._models:
            try:
                async with asyncio.timeout(self._connect_s):
                    return await model.connect(spec)
            except TimeoutError:
                error = ProviderTimeout("The speech model did not answer in time.", retryable=True)
            except ProviderError as failed:
                error = failed
            except Exception:
                logger.bind(session=spec.session_id).exception("realtime model broke")
                error = ProviderError("The speech model failed.")
            logger.warning(
                "realtime model passed over", session=spec.session_id, model=model.name, code=error.code
            )
        raise error
