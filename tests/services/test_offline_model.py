"""The built-in customer behind the realtime seam: read always, and heard where a voice service is configured."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from loguru import logger

from coach_server.domain.simulation.offline import Cast
from coach_server.domain.simulation.talk import Outcome, Role, TalkPhase
from coach_server.errors import ProviderError
from coach_server.paths import catalog
from coach_server.providers.realtime import (
    Audio,
    AudioOut,
    EndRequested,
    Heard,
    RealtimeEvent,
    RealtimeSpec,
    TurnDone,
)
from coach_server.providers.tts import Tts, TtsLimits
from coach_server.providers.tts.deepgram import DeepgramSpeak
from coach_server.services.live import Alarm
from coach_server.services.simulation.offline_model import DEAF, OfflineConnection, OfflineModel, Standing
from coach_server.services.simulation.offline_voice import OfflineVoice
from coach_server.services.simulation.persona_file import PersonaBook
from coach_server.services.simulation.steering import Steering
from coach_server.services.simulation.voice import Voice
from coach_server.services.simulation.voice_events import Cut, PlayedOut, Said, Trouble
from coach_server.testing import ManualClock
from tests.fakes import deepgram_speak
from tests.fakes.deepgram_speak import FakeDeepgramSpeak
from tests.fakes.openai_realtime import tone
from tests.fakes.waiting import Watched
from tests.services.test_voice import Client, wire_settled

