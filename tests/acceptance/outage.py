"""A cable that can be pulled: a TCP relay between client and server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Cable:
    """`cut` resets every connection and refuses new ones; `freeze` keeps them open and passes nothing on.
    `target`: a port of this machine, or the path of a Unix socket."""

    def __init__(self, target: int | str) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0

    async def plug(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    def freeze(self) -> None:
        self._flowing.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            out_reader, out_writer = await asyncio.open_unix_connection(self._target)
        else:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._target)
        frozen_with = self._flowing
        self._writers |= {writer, out_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, out_writer, frozen_with))
                group.create_task(self._pump(out_reader, writer, frozen_with))
        finally:
            self._writers -= {writer, out_writer}

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, flowing: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def fresh(self) -> None:
        """Connections from now on flow; those that were frozen stay so (a half-open connection)."""
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def unplug(self) -> None:
        await self.cut()


@asynccontextmanager
async def cable(target: int | str) -> AsyncIterator[Cable]:
    made = Cable(target)
    await made.plug()
    try:
        yield made
    finally:
        made._flowing.set()
        await made.unplug()
