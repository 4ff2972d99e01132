"""`python -m coach_server`: check the configuration, start, drain on SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

from aiohttp import web
from loguru import logger

from coach_server import __version__
from coach_server.api.http_runner import HttpRunner
from coach_server.app import COACHING, build_app
from coach_server.errors import CoachError, ConfigError
from coach_server.logs import set_up
from coach_server.settings import Settings, load_settings, with_generated_key


def main() -> int:
    try:
        settings, fresh_key = with_generated_key(load_settings())
    except CoachError as error:
        for line in error.message.splitlines():
            sys.stderr.write(f"Cannot start: {line}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"Cannot start: DATA_DIR cannot be written ({error.strerror}).\n")
        return 2
    if fresh_key is not None:
        sys.stdout.write(f"API key (made now, kept in {settings.data_dir / 'api-key'}): {fresh_key}\n")
        sys.stdout.flush()
    set_up(settings.log_level, as_json=(settings.log_format or _usual_format(settings)) == "json")
    try:
        return _run(settings)
    except CoachError as error:
        sys.stderr.write(f"Cannot start: {error.message}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"Cannot start: {error.strerror or type(error).__name__}.\n")
        return 2


def _usual_format(settings: Settings) -> str:
    return "json" if settings.is_production else "text"


def _run(settings: Settings) -> int:
    if sys.platform == "win32":
        asyncio.run(serve(settings))
    else:
        import uvloop

        uvloop.run(serve(settings))
    return 0


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    app = build_app(settings)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            loop.add_signal_handler(number, stop.set)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    runner = HttpRunner(
        app,
        clock=app[COACHING].clock,
        handle_signals=False,
        access_log=None,
        shutdown_timeout=3.0,
        lingering_time=1.0,
    )
    await runner.setup()
    # What start-up made stays for good. Collections that walk it again would hold every call up for 0.2 s.
    gc.collect()
    gc.freeze()
    try:
        await _listen(runner, settings)
        _announce(settings, runner)
        await stop.wait()
        await app[COACHING].drain()
    finally:
        await runner.cleanup()
    logger.info("Stopped")


async def _listen(runner: web.AppRunner, settings: Settings) -> None:
    try:
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
    except OSError as error:
        reason = error.strerror or "not possible"
        raise ConfigError(f"PORT: cannot listen on {settings.host}:{settings.port} ({reason})") from error


def _announce(settings: Settings, runner: web.AppRunner) -> None:
    port = runner.addresses[0][1]
    logger.bind(version=__version__, port=port, mode=settings.app_env.value).info("Ready")
    if settings.is_production:
        return
    shown = "localhost" if settings.host in ("127.0.0.1", "0.0.0.0", "::1") else settings.host
    lines = [f"Coach Server {__version__} is ready at http://{shown}:{port}"]
    if not settings.openai_api_key.get_secret_value() and not settings.openai_base_url:
        lines.append("OPENAI_API_KEY is not set: the built-in coach answers.")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
