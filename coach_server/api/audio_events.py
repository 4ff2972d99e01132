"""The audio events (live-coach.md §4): START_TRANSCRIPTION, AUDIO_CHUNK, END_TRANSCRIPTION."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coach_server.api import wire, wire_out
from coach_server.api.sockets import Answer, Client, Event, Sockets
from coach_server.clock import Clock, millis
from coach_server.errors import CoachError
from coach_server.services.transcription import Transcriptions
from coach_server.services.transcription_input import InvalidAudioData
from coach_server.services.transcription_session import TranscriptionResult


class AudioEvents:
    def __init__(self, sockets: Sockets, transcriptions: Transcriptions, clock: Clock) -> None:
        self._sockets = sockets
        self._transcriptions = transcriptions
        self._clock = clock

    def register(self) -> None:
        for event in (
            Event(
                "START_TRANSCRIPTION",
                wire.StartTranscription,
                self.start,
                "START_TRANSCRIPTION_ERROR",
                wire_out.StreamAccepted,
                ("TRANSCRIPTION_STARTED",),
            ),
            Event(
                "AUDIO_CHUNK",
                wire.AudioChunk,
                self.chunk,
                "AUDIO_CHUNK_ERROR",
                answers=("TRANSCRIPTION_RESULT",),
                is_audio=True,
            ),
            Event(
                "END_TRANSCRIPTION",
                wire.EndTranscription,
                self.end,
                "END_TRANSCRIPTION_ERROR",
                wire_out.StreamAccepted,
                ("TRANSCRIPTION_ENDED",),
            ),
        ):
            self._sockets.add(event)
        self._sockets.on_gone(self._transcriptions.drop_socket)

    async def start(self, client: Client, wish: wire.StartTranscription) -> Answer:
        await self._transcriptions.start(
            client.principal.owner,
            wish.sessionId,
            sid=client.sid,
            sample_rate=wish.sampleRate,
            encoding=wish.encoding,
            language=wish.language,
        )
        return await self._answer(client, "TRANSCRIPTION_STARTED", wish.sessionId)

    def chunk(self, client: Client, data: object) -> Answer:
        """Not checked by a model: audio comes often, and the service checks what it takes."""
        if isinstance(data, Mapping) and isinstance(data.get("payload"), Mapping):
            data = data["payload"]
        if not isinstance(data, Mapping):
            raise InvalidAudioData("The payload must be an object with chunk and sessionId.", field="payload")
        self._transcriptions.audio(
            client.principal.owner,
            data.get("sessionId"),
            data.get("chunk"),
            sid=client.sid,
            speaker=data.get("speaker"),
        )
        return {}

    async def end(self, client: Client, wish: wire.EndTranscription) -> Answer:
        await self._transcriptions.end(client.principal.owner, wish.sessionId, sid=client.sid)
        return await self._answer(client, "TRANSCRIPTION_ENDED", wish.sessionId)

    async def _answer(self, client: Client, name: str, session_id: str) -> Answer:
        payload: dict[str, Any] = {"sessionId": session_id, "timestamp": millis(self._clock.now())}
        await self._sockets.publisher.send(client.sid, name, payload)
        return payload


class AudioResults:
    """Where a transcription session's results and faults go: to its socket, if it has one."""

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets

    async def deliver(self, owner: str, sid: str | None, result: TranscriptionResult) -> None:
        if sid is not None:
            await self._sockets.publisher.send(sid, "TRANSCRIPTION_RESULT", result_payload(result))

    async def report(self, owner: str, sid: str | None, session_id: str, error: CoachError) -> None:
        if sid is not None:
            await self._sockets.error(sid, error, error.code, sessionId=session_id)


def result_payload(result: TranscriptionResult) -> dict[str, Any]:
    """TRANSCRIPTION_RESULT (live-coach.md §5)."""
    return {
        "text": result.text,
        "isFinal": result.is_final,
        "speaker": result.speaker,
        "confidence": result.confidence,
        "sessionId": result.session_id,
        "timestamp": millis(result.timestamp),
    }
