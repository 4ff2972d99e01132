"""Encryption of what people said, column by column, before it reaches the database (trust.md G30).

AES-256-GCM with a random nonce. Each value names its key and is bound to its table, column and row: it opens
nowhere else. Plain values stay readable, so that encryption can be switched on for a database that has rows.

A sealed text is `MARK key-id . base64(nonce + ciphertext)`; a sealed document is `{"enc": <sealed text>}`.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy.ext.asyncio import AsyncConnection

from coach_server.errors import StorageFailed

# Begins with a control character, which nothing that comes from a client holds (api/wire.py).
MARK = "\x1fenc1."
# Where a connection of the database carries its cipher (an execution option).
OPTION = "coach_cipher"
_NONCE_BYTES = 12
_ENC = "enc"


class Unreadable(StorageFailed):
    """A stored row cannot be read."""

    # A key that is not configured, or a value that was changed or moved: trying again is no use.
    retryable = False

    def __init__(self, row: str) -> None:
        super().__init__(f"A stored row cannot be read: {row}.")


class Cipher(Protocol):
    """`row` says where a value belongs, as `Sealed.place` gives it. `open_…` raise Unreadable."""

    def seal_text(self, text: str, row: str) -> str: ...

    def open_text(self, value: str, row: str) -> str: ...

    def seal_json(self, document: Any, row: str) -> Any: ...

    def open_json(self, value: Any, row: str) -> Any: ...

    def is_current(self, value: Any) -> bool:
        """Whether this stored value is as it would be written now."""
        ...


class NoCipher:
    """Without a key: values are stored as they are, and sealed ones cannot be read."""

    def seal_text(self, text: str, row: str) -> str:
        return _not_like_sealed(text)

    def open_text(self, value: str, row: str) -> str:
        if value.startswith(MARK):
            raise Unreadable(row)
        return value

    def seal_json(self, document: Any, row: str) -> Any:
        _not_like_sealed(_sealed_in(document) or "")
        return document

    def open_json(self, value: Any, row: str) -> Any:
        if _sealed_in(value) is not None:
            raise Unreadable(row)
        return value

    def is_current(self, value: Any) -> bool:
        sealed = value if isinstance(value, str) else _sealed_in(value)
        return sealed is None or not sealed.startswith(MARK)


class AesCipher:
    """`keys` are (id, 32 bytes): the first one writes, all of them read."""

    def __init__(self, keys: Sequence[tuple[str, bytes]]) -> None:
        self._keys = {id: AESGCM(key) for id, key in keys}
        self._first = keys[0][0]
        self._writer = self._keys[self._first]
        self._head = f"{MARK}{self._first}."

    def __repr__(self) -> str:
        return f"AesCipher({', '.join(self._keys)})"

    def seal_text(self, text: str, row: str) -> str:
        return self._seal(_not_like_sealed(text).encode(), row)

    def open_text(self, value: str, row: str) -> str:
        return self._open(value, row).decode() if value.startswith(MARK) else value

    def seal_json(self, document: Any, row: str) -> Any:
        return {_ENC: self._seal(orjson.dumps(document), row)}

    def open_json(self, value: Any, row: str) -> Any:
        sealed = _sealed_in(value)
        return value if sealed is None else orjson.loads(self._open(sealed, row))

    def is_current(self, value: Any) -> bool:
        sealed = value if isinstance(value, str) else _sealed_in(value)
        return sealed is not None and sealed.startswith(self._head)

    def _seal(self, plain: bytes, row: str) -> str:
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._writer.encrypt(nonce, plain, row.encode())
        return self._head + binascii.b2a_base64(sealed, newline=False).decode("ascii")

    def _open(self, value: str, row: str) -> bytes:
        id, _, encoded = value.removeprefix(MARK).partition(".")
        key = self._keys.get(id)
        try:
            if key is None:
                raise Unreadable(row)
            sealed = binascii.a2b_base64(encoded, strict_mode=True)
            return key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], row.encode())
        except (InvalidTag, ValueError):
            raise Unreadable(row) from None


def make_cipher(keys: Sequence[tuple[str, bytes]]) -> Cipher:
    return AesCipher(keys) if keys else NoCipher()


def cipher_of(conn: AsyncConnection) -> Cipher:
    """The cipher of the database this connection belongs to."""
    found: Cipher = conn.sync_connection.get_execution_options()[OPTION]  # type: ignore[union-attr]
    return found


@dataclass(frozen=True)
class Sealed:
    """The columns of a table that are encrypted, and the columns that name their row."""

    table: str
    row: tuple[str, ...]
    texts: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        return (*self.texts, *self.documents)

    def seal(self, cipher: Cipher, values: Mapping[Any, Any]) -> dict[str, Any]:
        """The row to store. Columns that are missing or None stay so."""
        return self._through(cipher.seal_text, cipher.seal_json, values)

    def open(self, cipher: Cipher, values: Mapping[Any, Any]) -> dict[str, Any]:
        """The row as it was. Raises Unreadable, which names table and row."""
        return self._through(cipher.open_text, cipher.open_json, values)

    def is_current(self, cipher: Cipher, values: Mapping[Any, Any]) -> bool:
        return all(values[name] is None or cipher.is_current(values[name]) for name in self.columns)

    def _through(
        self,
        text: Callable[[str, str], str],
        document: Callable[[Any, str], Any],
        values: Mapping[Any, Any],
    ) -> dict[str, Any]:
        done = dict(values)
        # As JSON, so that no two rows share a name.
        of = orjson.dumps([values[name] for name in self.row]).decode()
        for columns, change in ((self.texts, text), (self.documents, document)):
            for name in columns:
                if done.get(name) is not None:
                    done[name] = change(done[name], f"{self.table}.{name} {of}")
        return done


UTTERANCES = Sealed("utterances", ("conversation_id", "sequence"), texts=("text",))
CALL_EVENTS = Sealed("call_events", ("conversation_id", "seq"), documents=("payload",))
TIPS = Sealed(
    "tips",
    ("conversation_id", "recommendation_id"),
    texts=("heading", "context", "why"),
    documents=("options",),
)
ANALYSES = Sealed("analyses", ("conversation_id",), documents=("document",))
CONVERSATIONS = Sealed("conversations", ("id",), documents=("state", "metadata"))
USERS = Sealed("users", ("principal", "user_id"), texts=("feedback_email",))
SESSIONS = Sealed("roleplay_sessions", ("id",), texts=("heygen_access_token",), documents=("state",))
STEPS = Sealed("roleplay_step_progress", ("session_id", "step_id"), texts=("feedback",))
MESSAGES = Sealed(
    "roleplay_transcripts",
    ("session_id", "sequence_number"),
    texts=("message",),
    documents=("reading",),
)
FEEDBACK = Sealed("roleplay_feedback", ("session_id",), documents=("document", "judgement"))
CALL_FEEDBACK = Sealed("call_feedback", ("conversation_id",), documents=("document",))
DRILLS = Sealed("drills", ("id",), documents=("document",))
SIMULATIONS = Sealed("simulations", ("id",), documents=("metadata", "state"))
SIM_UTTERANCES = Sealed("simulation_utterances", ("session_id", "sequence"), texts=("text",))
SIM_EVENTS = Sealed("simulation_events", ("session_id", "sequence"), documents=("data",))
SIM_SCORES = Sealed("simulation_scores", ("session_id",), documents=("document", "judgement"))
SEALED = {
    one.table: one
    for one in (
        CONVERSATIONS,
        UTTERANCES,
        CALL_EVENTS,
        TIPS,
        ANALYSES,
        USERS,
        SESSIONS,
        STEPS,
        MESSAGES,
        FEEDBACK,
        CALL_FEEDBACK,
        DRILLS,
        SIMULATIONS,
        SIM_UTTERANCES,
        SIM_EVENTS,
        SIM_SCORES,
    )
}


def seal_row(cipher: Cipher, table: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row of any table as it is to be stored. A row brings all of its table's sealed columns or none, but
    for `conversations`, whose `state` is saved alone."""
    sealed = SEALED.get(table)
    if sealed is None or sealed.columns[0] not in values:
        return values
    return sealed.seal(cipher, values)


def _sealed_in(value: Any) -> str | None:
    """The sealed text of a stored document; None for a plain one."""
    if isinstance(value, dict) and len(value) == 1:
        inner = value.get(_ENC)
        if isinstance(inner, str) and inner.startswith(MARK):
            return inner
    return None


def _not_like_sealed(text: str) -> str:
    """A plain value that looks sealed could not be told from one when it is read."""
    if text.startswith(MARK):
        raise ValueError("a text begins like an encrypted one")
    return text
