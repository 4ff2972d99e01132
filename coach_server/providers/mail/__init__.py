"""Sending one e-mail. Vendor files in this folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import getaddresses
from typing import Protocol

from coach_server.errors import Invalid

MAX_ADDRESS_CHARS = 254

# What real mail providers take, not all of RFC 5322: no quoted local parts, no address literals, no comments.
# Nothing here can end a header or start a second recipient.
_ADDRESS = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_address(text: str) -> bool:
    local = text.partition("@")[0]
    return len(text) <= MAX_ADDRESS_CHARS and len(local) <= 64 and _ADDRESS.fullmatch(text) is not None


def is_sender(text: str) -> bool:
    """An address, with or without a name before it. For the outbox `@localhost` will do as well."""
    if _CONTROL.search(text):
        return False
    addresses = getaddresses([text])
    if len(addresses) != 1:
        return False
    local, at, host = addresses[0][1].rpartition("@")
    return is_address(local + at + ("example.com" if host == "localhost" else host))


@dataclass(frozen=True, slots=True)
class MailMessage:
    """`sender` may carry a name: `Coach <coach@example.com>`. Raises Invalid where a field could inject a
    header or an address is not one, so that no provider can be handed such a message."""

    sender: str
    to: tuple[str, ...]
    subject: str
    text: str
    html: str
    cc: tuple[str, ...] = ()
    conversation_id: str | None = None
    """The call it is about; an outbox finds it by that."""

    def __post_init__(self) -> None:
        if not is_sender(self.sender):
            raise Invalid("The sender is not an e-mail address.", field="sender")
        for field, addresses in (("to", self.to), ("cc", self.cc)):
            if not all(map(is_address, addresses)):
                raise Invalid("A recipient is not an e-mail address.", field=field)
        if not self.to:
            raise Invalid("A message needs a recipient.", field="to")
        if self.conversation_id is not None and _CONTROL.search(self.conversation_id):
            raise Invalid("The id must be one line.", field="conversationId")
        if _CONTROL.search(self.subject):
            raise Invalid("The subject must be one line.", field="subject")


class Mail(Protocol):
    async def send(self, message: MailMessage) -> str:
        """The id the vendor gave the message. Raises ProviderError."""
        ...
