"""The practice pages in a real browser: choosing, talking, stopping, for the tests of these pages."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import BrowserContext, Page, Route, expect

from tests.browser.console import Console, opened
from tests.serving import Server

TALK = {
    "nl": (
        "Goeiedag, fijn dat u tijd vrijmaakt.",
        "Mag ik u eerst enkele vragen stellen, en kijken we daarna samen of het past?",
        "Hoe lang werkt u al met uw huidige leverancier?",
        "Wat vindt u daar goed aan, en wat zou u anders willen?",
        "Wat betekent dat voor u als er niets verandert?",
        "Als ik het goed begrijp wilt u minder stilstand en zekerheid over de kosten. Klopt dat?",
    ),
    "en": (
        "Good morning, thank you for making time.",
        "May I ask you a few questions first, and then we see together whether it fits?",
        "How long have you been working with your current supplier?",
        "What do you like about it, and what would you want to be different?",
        "What does it mean for you if nothing changes?",
        "If I understand you well, you want less downtime and certainty about the cost. Is that right?",
    ),
    "he": (
        "בוקר טוב, תודה שפינית לי זמן.",
        "אפשר לשאול כמה שאלות קודם, ואחר כך נבדוק יחד אם זה מתאים?",
        "כמה זמן אתם עובדים עם הספק הנוכחי?",
        "מה טוב בזה, ומה היית רוצה שיהיה אחרת?",
        "מה זה אומר מבחינתך אם שום דבר לא ישתנה?",
        "אם הבנתי נכון, חשוב לך פחות השבתות וודאות לגבי העלות. נכון?",
    ),
}


@dataclass
class Practising(Console):
    """The page with a talk on it. `heard`: how many lines stand in it."""

    heard: int = field(default=0)

    async def start(self, number: int = 0) -> None:
        await self.page.locator(".scenario .start").nth(number).click()
        await self.begun()

    async def begun(self) -> None:
        """A talk has begun, with the customer's first words."""
        await expect(self.page.locator("body")).to_have_attribute("data-phase", "live")
        await expect(self.page.locator("#connection")).to_have_attribute("data-state", "connected")
        await expect(self.lines("caller")).to_have_count(1)
        self.heard = 1

    def lines(self, speaker: str) -> Any:
        return self.page.locator(f"#lines .line.{speaker}[data-state=saved]")

    async def utter(self, text: str) -> None:
        """Say something and wait for the customer's whole answer."""
        await self.page.locator("#words").fill(text)
        await self.page.keyboard.press("Enter")
        self.heard += 1
        await expect(self.lines("caller")).to_have_count(self.heard)

    async def talk(self, language: str) -> None:
        for text in TALK[language]:
            await self.utter(text)

    async def stop(self) -> None:
        """Stop, and wait for the result."""
        await self.page.locator("#stop").click()
        await expect(self.page.locator("#analysis")).to_have_attribute("data-state", "ready")

    @property
    def faults(self) -> list[str]:
        """What the browser complained about; that a result is not ready yet is no fault."""
        return [text for text in self.complaints if "409" not in text]


async def at(context: BrowserContext, server: Server, path: str) -> Practising:
    console = await opened(context, server, path)
    return Practising(console.page, console.complaints)


async def answer(page: Page, pattern: str, document: Mapping[str, Any]) -> None:
    """The browser is told `document` where it asks for `pattern`."""

    async def fulfil(route: Route) -> None:
        await route.fulfill(content_type="application/json", body=json.dumps(document))

    await page.route(pattern, fulfil)
