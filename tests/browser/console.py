"""A real Chromium in front of a real server, for the tests of the console page."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.conftest import NOT_TESTED
from tests.serving import Server, node_modules

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FASTEST = "16"
expect.set_options(timeout=15_000)


def chromium() -> str:
    """The path of a Chromium; skips the test, by name, when there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"{NOT_TESTED}: no Chromium ({', '.join(NAMES)}) on this machine")
    return found


def need_socket_client() -> None:
    if not (node_modules() / "socket.io-client" / "dist" / "socket.io.esm.min.js").is_file():
        pytest.skip(f"{NOT_TESTED}: the npm packages are not installed (npm ci)")


@dataclass
class Console:
    """The page, and what its browser complained about."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    async def play(self, speed: str = FASTEST) -> None:
        await self.page.locator(f"#speed-choice label:has(input[value='{speed}'])").click()
        await self.page.locator("#play").click()

    async def talk(self) -> None:
        await self.page.locator("#talk").click()
        await expect(self.page.locator("body")).to_have_attribute("data-phase", "live")

    async def utter(self, speaker: str, text: str) -> None:
        await self.page.locator(f"#say label:has(input[value='{speaker}'])").click()
        await self.page.locator("#words").fill(text)
        await self.page.locator("#say button[type=submit]").click()

    async def wait_for_tips(self, count: int) -> None:
        """`count` tips have come: one is on screen, the others are kept."""
        await expect(self.page.locator("#tip")).to_be_visible()
        if count > 1:
            await expect(self.page.locator("#earlier-tips > li").nth(count - 2)).to_be_visible()

    async def tip_id(self) -> str:
        return await self.page.locator("#tip-heading").inner_text()

    async def overflow(self) -> int:
        """Pixels that stick out at the side."""
        wide: int = await self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return wide


@asynccontextmanager
async def browsing(**options: Any) -> AsyncIterator[BrowserContext]:
    path = chromium()
    async with async_playwright() as playwright:
        browser: Browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            context = await browser.new_context(**{"locale": "en-GB", **options})
            context.set_default_timeout(20_000)
            yield context
        finally:
            await browser.close()


async def opened(context: BrowserContext, server: Server, path: str = "/") -> Console:
    console = Console(await context.new_page())
    page, heard = console.page, console.complaints
    page.on("console", lambda line: heard.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.append(str(error)))
    await page.goto(f"http://localhost:{server.port}{path}")
    await expect(page.locator("body")).to_have_attribute("data-ready", "true")
    return console
