"""Erasure on request and the deletion of what is too old (trust.md G27, G28; GDPR Art. 5(1)(e) and 17)."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from collections import Counter
from collections.abc import Collection
from typing import Any, Protocol

from loguru import logger

from coach_server.clock import Clock, millis
from coach_server.errors import Forbidden, NotFound, StorageFailed
from coach_server.services.access import Principal, Role
from coach_server.services.archive import may_see
from coach_server.services.call_store import ANALYSE, SCORE
from coach_server.storage import conversations, practice_privacy, privacy
from coach_server.storage.database import Database
from coach_server.storage.privacy import Receipt

# Conversations of one transaction: some ten thousand rows, while which nobody else can write to SQLite.
BATCH = 20
# A user who goes on starting calls while being erased is erased again, so often at most.
ROUNDS = 1_000


class LiveCalls(Protocol):
    async def forget(self, principal_key: str, user_id: str | None, call_ids: Collection[str]) -> int: ...


class Letters(Protocol):
    """Messages kept as files."""

    async def delete_about(self, conversation_ids: Collection[str]) -> int: ...

    async def delete_before(self, moment: float) -> int: ...


class PractisedThings(Protocol):
    """What a user practised."""

    async def erase(self, principal_key: str, user_id: str) -> tuple[Counter[str], list[str]]:
        """Everything of it: how many rows of each table, and the ids of the sessions that are gone."""
        ...


class SimulatedThings(Protocol):
    """What a user said in simulations."""

    async def erase(self, principal_key: str, user_id: str) -> Counter[str]:
        """Everything of it: how many rows of each table."""
        ...


class Erasure:
    """`secret` makes the digests of receipts."""

    def __init__(
        self,
        database: Database,
        calls: LiveCalls,
        practised: PractisedThings,
        simulated: SimulatedThings,
        letters: Letters,
        clock: Clock,
        *,
        secret: bytes,
    ) -> None:
        self._database = database
        self._calls = calls
        self._practised = practised
        self._simulated = simulated
        self._letters = letters
        self._clock = clock
        self._secret = secret

    async def user(self, principal: Principal, user_id: str) -> dict[str, Any]:
        """Erase everything of this user under the principal's API key: `{receiptId, at, counts}`. Erasing
        again finds nothing and is fine. Raises Forbidden, StorageFailed."""
        require_self(principal, user_id)
        gone: Counter[str] = Counter()
        await self._calls.forget(principal.key, user_id, ())
        for _ in range(ROUNDS):
            async with self._database.read() as conn:
                ids = await privacy.of_user(conn, principal.key, user_id, BATCH)
            if not ids:
                break
            await self._calls.forget(principal.key, user_id, ids)
            gone += await self._erase(ids)
        practised, sessions = await self._practised.erase(principal.key, user_id)
        gone += practised
        gone += await self._simulated.erase(principal.key, user_id)
        gone["letters"] += await self._letters.delete_about(sessions)
        return await self._receipt("user", f"{principal.key}/{user_id}", gone)

    async def conversation(self, principal: Principal, call_id: str) -> dict[str, Any]:
        """Erase one conversation. Raises NotFound, Forbidden (a manager, of another's), StorageFailed."""
        async with self._database.read() as conn:
            whose = await conversations.whose(conn, call_id)
        if whose is None or not may_see(principal, whose):
            raise NotFound("There is no such conversation.", field="conversationId")
        if principal.role is Role.MANAGER and whose.user_id != principal.user_id:
            raise Forbidden("Only its user may erase a conversation.")
        await self._calls.forget(principal.key, None, [call_id])
        return await self._receipt("conversation", call_id, await self._erase([call_id]))

    async def _erase(self, ids: Collection[str]) -> Counter[str]:
        async with self._database.transaction() as conn:
            keys = [f"{kind}:{id}" for kind in (ANALYSE, SCORE) for id in ids]
            gone = await privacy.erase(conn, list(ids), keys)
            gone["drills"] = await practice_privacy.erase_drills_of(conn, "call", list(ids))
        gone["letters"] = await self._letters.delete_about(ids)
        return gone

    async def _receipt(self, kind: str, whose: str, gone: Counter[str]) -> dict[str, Any]:
        digest = hmac.new(self._secret, f"{kind} {whose}".encode(), hashlib.sha256).hexdigest()
        receipt = Receipt(str(uuid.uuid4()), kind, self._clock.now(), digest, privacy.plain(gone))
        async with self._database.transaction() as conn:
            await privacy.keep_receipt(conn, receipt)
        await scrub(self._database)
        logger.bind(receipt=receipt.id, kind=kind, **receipt.counts).info("Erased")
        return {"receiptId": receipt.id, "at": millis(receipt.at), "counts": receipt.counts}


def require_self(principal: Principal, user_id: str) -> None:
    """What is all of a user's is for the user, an admin, and the API key under which the user was named."""
    if principal.role not in (Role.SERVICE, Role.ADMIN) and principal.user_id != user_id:
        raise Forbidden("This is for the user, an admin or the API key.")


async def scrub(database: Database) -> None:
    """Deleted words may still stand in the write-ahead log; the next checkpoint takes them otherwise."""
    try:
        if await database.scrub():
            return
    except StorageFailed:
        pass
    logger.warning("The write-ahead log could not be emptied now; it will be with the next erasure or sweep")
