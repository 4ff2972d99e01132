"""Files in a folder of this machine."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

from coach_server.errors import NotFound, StorageFailed
from coach_server.providers.files import parts_of


class LocalFiles:
    """For the server's user only. A reader sees the old file or the new one, never half of either."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, key: str, data: bytes) -> None:
        parts = parts_of(key)
        try:
            await asyncio.to_thread(self._write, parts, data)
        except OSError as error:
            raise StorageFailed("The file could not be written.") from error

    async def get(self, key: str) -> bytes:
        parts = parts_of(key)
        try:
            return await asyncio.to_thread(lambda: self._path(parts).read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise NotFound("There is no such file.") from error
        except OSError as error:
            raise StorageFailed("The file could not be read.") from error

    async def delete(self, key: str) -> None:
        parts = parts_of(key)
        try:
            await asyncio.to_thread(self._remove, parts)
        except OSError as error:
            raise StorageFailed("The file could not be deleted.") from error

    def _path(self, parts: list[str]) -> Path:
        """Raises NotFound where a link in the folder leads out of it."""
        home = self._folder.resolve()
        path = home.joinpath(*parts).resolve()
        if not path.is_relative_to(home):
            raise NotFound("There is no such file.")
        return path

    def _write(self, parts: list[str], data: bytes) -> None:
        path = self._path(parts)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        except OSError:
            draft.unlink(missing_ok=True)
            raise

    def _remove(self, parts: list[str]) -> None:
        """The folder goes with its last file."""
        path = self._path(parts)
        path.unlink(missing_ok=True)
        folder = path.parent
        if folder != self._folder.resolve() and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
