"""What the parts of the composition root share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from coach_server.api.auth import Origins
from coach_server.api.sockets import Sockets
from coach_server.clock import Clock
from coach_server.providers.avatar import Avatar
from coach_server.providers.bus import Bus
from coach_server.providers.embedder import Embedder
from coach_server.providers.llm import LLM
from coach_server.providers.mail import Mail
from coach_server.providers.realtime import RealtimeModel
from coach_server.services.access import Gate
from coach_server.services.breaker import Breaker
from coach_server.services.catalog import Catalog
from coach_server.services.costs import CostGovernor
from coach_server.services.limits import Limits
from coach_server.services.method.eyes import MethodEyes
from coach_server.settings import Settings
from coach_server.storage.database import Database


@dataclass(frozen=True, slots=True)
class Parts:
    """`models`: by the role of a prompt. `avatar`, `realtime`: in the place of the vendors'."""

    settings: Settings
    clock: Clock
    database: Database
    node: str
    gate: Gate
    origins: Origins
    sockets: Sockets
    bus: Bus
    llm: LLM | None
    catalog: Catalog
    models: Mapping[str, str]
    breaker: Breaker
    governor: CostGovernor
    eyes: MethodEyes
    embedder: Embedder | None
    http: aiohttp.ClientSession
    limits: Limits
    mail: Mail
    avatar: Avatar | None = None
    realtime: RealtimeModel | None = None
