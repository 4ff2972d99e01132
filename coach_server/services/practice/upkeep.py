"""What practice needs besides its clients: time passing, avatars renewed and stopped, feedback by mail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import NotFound
from coach_server.providers.avatar import AvatarSession, AvatarWish, StopReason
from coach_server.providers.mail import Mail
from coach_server.services.practice.avatars import Avatars, AvatarStatus
from coach_server.services.practice.feedback_mail import feedback_message
from coach_server.services.practice.messages import Teller
from coach_server.services.practice.sessions import avatar_state, keep_avatar
from coach_server.services.practice.store import RoleplayStore, is_running
from coach_server.storage import practice, roleplays
from coach_server.storage.roleplays import Session

BATCH = 200
# A token that lives this much longer, at most, may be near the end of its life.
LOOK_AHEAD_S = 3 * 3600.0
MOVE_S = 20.0  # for a client to go over to a new avatar before the old one is stopped


class RoleplayUpkeep:
    def __init__(
        self,
        *,
        store: RoleplayStore,
        avatars: Avatars,
        teller: Teller,
        mail: Mail,
        sender: str,
        clock: Clock,
    ) -> None:
        self._store = store
        self._avatars = avatars
        self._teller = teller
        self._mail = mail
        self._sender = sender
        self._clock = clock

    async def sweep(self) -> None:
        """Abandon and end the sessions whose time has come; renew avatars. One instance does it at a time,
        but nothing breaks when two do. Raises StorageFailed."""
        await self._pass_time()
        if self._avatars.provider != "off":
            await self._renew_avatars()

    async def _pass_time(self) -> None:
        now, timing = self._clock.now(), self._store.timing
        async with self._store.database.read() as conn:
            due = await roleplays.stale(
                conn,
                seen_before=now - timing.abandon_s,
                began_before=now - timing.session_s,
                limit=BATCH,
            )
        ended = 0
        for session_id in due:
            try:
                ended += await self._store.pass_time(session_id)
            except NotFound:
                continue  # erased meanwhile
        if ended:
            logger.info("Practice sessions were ended by time", sessions=ended)
            self._store.on_end()

    # --- avatars

    async def _renew_avatars(self) -> None:
        now = self._clock.now()
        async with self._store.database.read() as conn:
            found = await roleplays.with_old_tokens(conn, now + LOOK_AHEAD_S, BATCH)
        for session_id in found:
            session = await self._store.load(session_id)
            if is_running(session) and self._is_due(session, now):
                await self._renew(session)

    def _is_due(self, session: Session, now: float) -> bool:
        kept = session.state.get("avatar") or {}
        if session.avatar_expires_at is None or "issuedAt" not in kept:
            return False
        return self._avatars.due_for_refresh(
            session.avatar_expires_at, now, issued_at=float(kept["issuedAt"])
        )

    async def _renew(self, session: Session) -> None:
        """Open what follows, store it, order the old one's stop, and tell the client to move."""
        opening = await self._avatars.refresh(_avatar_of(session))
        found = opening.session
        if found is None or found.session_id == session.heygen_session_id:
            return
        async with self._store.changing(session.id) as opened:
            before = opened.session
            opened.session = keep_avatar(before, self._avatars.provider, opening)
            opened.state["avatar"] = avatar_state(opening)
            await self._store.order_avatar_stop(
                opened.conn, before, StopReason.REPLACED, opened.now, after_s=MOVE_S
            )
        await self._teller.event(
            session.id,
            "avatar:status",
            {
                "sessionId": session.id,
                "status": AvatarStatus.READY.value,
                "heygenSessionId": found.session_id,
                "livekitUrl": found.livekit_url,
                "livekitToken": found.livekit_token,
            },
        )

    async def stop_avatar(self, payload: dict[str, Any]) -> None:
        """Job `stop_avatar`: `{sessionId, provider, vendorId, reason}`. Raises ProviderError to be tried
        again."""
        vendor_id, reason = str(payload["vendorId"]), StopReason(str(payload["reason"]))
        await self._avatars.close(str(payload["provider"]), vendor_id, reason)
        async with self._store.database.transaction() as conn:
            session = await roleplays.load(conn, str(payload["sessionId"]), to_change=True)
            if session is not None and session.heygen_session_id == vendor_id:
                stopped = replace(session, avatar_stopped_at=self._clock.now(), heygen_access_token=None)
                await roleplays.save(conn, stopped, self._clock.now())

    async def erase_avatar(self, payload: dict[str, Any]) -> None:
        """Job `erase_avatar`: `{provider, vendorId}`: what the vendor kept of a session. Raises ProviderError
        to be tried again."""
        vendor_id = str(payload["vendorId"])
        await self._avatars.close(str(payload["provider"]), vendor_id, StopReason.COMPLETED)
        await self._avatars.erase(str(payload["provider"]), vendor_id)

    # --- mail

    async def mail_feedback(self, payload: dict[str, Any]) -> None:
        """Job `mail_feedback`: `{sessionId}`. Raises ProviderError to be tried again."""
        session_id = str(payload["sessionId"])
        async with self._store.database.read() as conn:
            session = await roleplays.load(conn, session_id)
            found = await practice.feedback(conn, session_id)
            user = await practice.user(conn, session.principal, session.user_id) if session else None
        if session is None or found is None or user is None or user.feedback_email is None:
            return
        message = await asyncio.to_thread(
            feedback_message,
            {"sessionId": session_id, **found.document},
            self._store.method(session),
            sender=self._sender,
            to=user.feedback_email,
            language=session.language,
        )
        await self._mail.send(replace(message, conversation_id=session_id))
        logger.bind(session=session_id).info("Feedback was mailed")


def _avatar_of(session: Session) -> AvatarSession:
    """The avatar as it was opened, as far as renewing it needs."""
    kept = session.state.get("avatar") or {}
    return AvatarSession(
        session.avatar_provider,
        session.heygen_session_id or "",
        AvatarWish(session.id, session.language),
        livekit_url=str(kept.get("livekitUrl", "")),
        livekit_token=session.heygen_access_token or "",
        client_token=str(kept.get("clientToken", "")),
        issued_at=float(kept.get("issuedAt", 0.0)),
        expires_at=session.avatar_expires_at or 0.0,
    )
