"""The call report by e-mail: who may get it, how often, from whom. `report_page` makes the words."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Collection
from datetime import UTC, tzinfo

from loguru import logger

from coach_server.clock import Clock
from coach_server.errors import ConfigError, Forbidden, RateLimited
from coach_server.providers.mail import Mail, MailMessage, is_sender
from coach_server.services import report_page
from coach_server.services.report_input import CallMetadata, ReportIn

REPORTS_PER_MINUTE = 10
WINDOW_S = 60.0
MAX_COUNTED = 10_000


class Reports:
    """`sender` comes from the configuration and never from a request. `allowed_domains` limits who may be
    written to (the extension carries its key with it, so a key alone should not be able to mail the world);
    empty means anyone. Raises ConfigError for a sender that is no address."""

    def __init__(
        self,
        mail: Mail,
        sender: str,
        clock: Clock,
        *,
        allowed_domains: Collection[str] = (),
        language: str = report_page.FALLBACK_LANGUAGE,
        zone: tzinfo = UTC,
        per_minute: int = REPORTS_PER_MINUTE,
    ) -> None:
        if not is_sender(sender):
            raise ConfigError("EMAIL_FROM_ADDRESS: the sender of reports is not an e-mail address.")
        self._mail = mail
        self._sender = sender
        self._domains = frozenset(domain.lower() for domain in allowed_domains)
        self._language = language
        self._zone = zone
        self._rate = _Rate(clock, per_minute)

    async def send_report(self, report: ReportIn) -> str:
        """The message id. Raises Forbidden (a recipient outside the allowed domains), RateLimited (with the
        seconds this agent must wait), ProviderError, StorageFailed."""
        call = report.call_metadata
        cc = _copies(call)
        self._check_domains([call.agent_email, *cc])
        self._rate.count(call.agent_email.lower())
        page = await asyncio.to_thread(report_page.render, report, language=self._language, zone=self._zone)
        message = MailMessage(
            self._sender, (call.agent_email,), page.subject, page.text, page.html, cc, call.conversation_id
        )
        message_id = await self._mail.send(message)
        logger.bind(message=message_id, copies=len(cc), characters=len(page.html)).info("call report sent")
        return message_id

    def _check_domains(self, addresses: list[str]) -> None:
        if self._domains and any(_domain(address) not in self._domains for address in addresses):
            raise Forbidden("Reports may not be sent to this domain.", field="agentEmail")


class _Rate:
    """Reports of the last minute by agent. The agents counted are bounded: the longest idle goes first."""

    def __init__(self, clock: Clock, per_window: int) -> None:
        self._clock = clock
        self._per_window = per_window
        self._sent: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, who: str) -> None:
        now = self._clock.now()
        times = self._sent.setdefault(who, deque())
        self._sent.move_to_end(who)
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        if len(times) >= self._per_window:
            raise RateLimited("Too many reports for this agent.", retry_after_s=times[0] + WINDOW_S - now)
        times.append(now)
        while len(self._sent) > MAX_COUNTED:
            self._sent.popitem(last=False)


def _copies(call: CallMetadata) -> tuple[str, ...]:
    """Each address once, and not the agent's own again."""
    seen = {call.agent_email.lower()}
    copies: list[str] = []
    for address in call.cc_emails or []:
        if address.lower() not in seen:
            seen.add(address.lower())
            copies.append(address)
    return tuple(copies)


def _domain(address: str) -> str:
    return address.rpartition("@")[2].lower()
