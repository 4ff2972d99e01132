"""Mail for a machine without a mail service: each message becomes a file anyone's mail program can open."""

from __future__ import annotations

import asyncio
import os
import secrets
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

from coach_server.clock import Clock
from coach_server.errors import StorageFailed
from coach_server.providers.mail import MailMessage


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


def _mime(message: MailMessage, message_id: str, sent: datetime) -> bytes:
    mime = EmailMessage(policy=SMTP)
    mime["From"] = message.sender
    mime["To"] = ", ".join(message.to)
    if message.cc:
        mime["Cc"] = ", ".join(message.cc)
    mime["Subject"] = message.subject
    mime["Date"] = format_datetime(sent)
    mime["Message-ID"] = f"<{message_id}@localhost>"
    mime.set_content(message.text)
    mime.add_alternative(message.html, subtype="html")
    return mime.as_bytes()
