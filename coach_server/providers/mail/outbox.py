"""Mail for a machine without a mail service: each message becomes a file anyone's mail program can open."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

from coach_server.clock import Clock
from coach_server.errors import StorageFailed
from coach_server.providers.mail import MailMessage

_ABOUT = "X-Conversation"


class Outbox:
    """Writes `<folder>/<time>-<id>.eml` for the server's user only. A file appears whole or not at all."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock

    async def send(self, message: MailMessage) -> str:
        sent = datetime.fromtimestamp(self._clock.now(), UTC)
        message_id = f"outbox-{secrets.token_hex(16)}"
        name = f"{sent:%Y%m%dT%H%M%SZ}-{message_id}.eml"
        try:
            await asyncio.to_thread(self._write, name, _mime(message, message_id, sent))
        except OSError as error:
            raise StorageFailed("The message could not be written to the outbox.") from error
        return message_id

    async def delete_about(self, conversation_ids: Collection[str]) -> int:
        """Delete the messages about these calls; answers how many there were."""
        wanted = {_digest(id) for id in conversation_ids}
        return await asyncio.to_thread(self._delete, lambda file: _about(file) in wanted)

    async def delete_before(self, moment: float) -> int:
        """Delete the messages written before `moment` (seconds since the epoch), also half-written ones."""
        limit = f"{datetime.fromtimestamp(moment, UTC):%Y%m%dT%H%M%SZ}"
        return await asyncio.to_thread(self._delete, lambda file: file.name.lstrip(".") < limit)

    def _delete(self, is_wanted: Callable[[Path], bool]) -> int:
        gone = 0
        try:
            for file in self._folder.glob("*"):
                if file.name.endswith((".eml", ".eml.part")) and is_wanted(file):
                    file.unlink(missing_ok=True)
                    gone += 1
        except OSError as error:
            raise StorageFailed("The outbox could not be cleared.") from error
        return gone

    def _write(self, name: str, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._folder / f".{name}.part"
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._folder / name)
        except OSError:
            draft.unlink(missing_ok=True)
            raise


def _digest(conversation_id: str) -> str:
    # Short enough that the header is not folded.
    return hashlib.blake2b(conversation_id.encode("utf-8", "replace"), digest_size=16).hexdigest()


def _about(file: Path) -> str | None:
    """The digest in a message's head."""
    with file.open("rb") as lines:
        for line in lines:
            name, _, value = line.partition(b":")
            if name.decode("latin-1") == _ABOUT:
                return value.strip().decode("latin-1")
            if not line.strip():
                break
    return None


def _mime(message: MailMessage, message_id: str, sent: datetime) -> bytes:
    mime = EmailMessage(policy=SMTP)
    mime["From"] = message.sender
    mime["To"] = ", ".join(message.to)
    if message.cc:
        mime["Cc"] = ", ".join(message.cc)
    mime["Subject"] = message.subject
    mime["Date"] = format_datetime(sent)
    mime["Message-ID"] = f"<{message_id}@localhost>"
    if message.conversation_id is not None:
        # A digest, as the id may be anything a client chose.
        mime[_ABOUT] = _digest(message.conversation_id)
    mime.set_content(message.text)
    mime.add_alternative(message.html, subtype="html")
    return mime.as_bytes()
