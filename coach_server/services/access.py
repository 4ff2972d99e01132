"""Who is asking: API keys and short-lived user tokens. One place for Socket.IO, REST and WebSocket."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import jwt

from coach_server.clock import Clock
from coach_server.errors import Forbidden, Unauthorized

MAX_CREDENTIAL_CHARS = 512
MAX_TOKEN_CHARS = 2048
DEFAULT_TTL_S = 3600
MAX_TTL_S = 24 * 3600
_ALGORITHM = "HS256"
_AUDIENCE = "coach-server"


class Role(StrEnum):
    """`service` is an API key without a user: it may do what an integrator's back end needs. `session`: a
    join token, good for one practice session. `guest`: nobody, let in where practising is open to anyone."""

    SERVICE = "service"
    AGENT = "agent"
    TRAINEE = "trainee"
    MANAGER = "manager"
    ADMIN = "admin"
    SESSION = "session"
    GUEST = "guest"


# Roles of people and programs that have credentials of their own; only these are handed out as user tokens.
PERSONAL = tuple(role for role in Role if role not in (Role.SESSION, Role.GUEST))


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts. `key` is the API key's name, never the key. `expires_at`: when a token ends, in seconds.
    `session_id`: the practice session of a join token."""

    key: str
    role: Role
    user_id: str | None = None
    team_id: str | None = None
    expires_at: float | None = field(default=None, compare=False)
    session_id: str | None = None

    @property
    def owner(self) -> str:
        """One string for who owns a thing this principal makes."""
        return f"{self.key}/{self.user_id or ''}"

    def has_expired(self, now: float) -> bool:
        return self.expires_at is not None and now >= self.expires_at

    def require(self, *roles: Role) -> None:
        if self.role not in roles:
            raise Forbidden()


class Gate:
    """Checks credentials. Every refusal is the same `Unauthorized`."""

    def __init__(self, keys: Sequence[tuple[str, str]], token_secret: str, clock: Clock) -> None:
        self._digests = [(name, _digest(key)) for name, key in keys]
        self._clock = clock
        self._secret = token_secret.encode() if token_secret else _derived_secret(keys)

    def by_key(self, value: object) -> Principal:
        """The principal of an API key. Compares digests, and always all of them, in constant time."""
        if not isinstance(value, str) or not 0 < len(value) <= MAX_CREDENTIAL_CHARS:
            raise Unauthorized()
        try:
            digest = _digest(value)
        except UnicodeEncodeError:
            raise Unauthorized() from None
        found = None
        for name, known in self._digests:
            if hmac.compare_digest(digest, known):
                found = name
        if found is None:
            raise Unauthorized()
        return Principal(found, Role.SERVICE)

    def by_token(self, value: object) -> Principal:
        """The principal of a user token made by `issue`."""
        if not isinstance(value, str) or not 0 < len(value) <= MAX_TOKEN_CHARS:
            raise Unauthorized()
        try:
            claims = jwt.decode(
                value,
                self._secret,
                algorithms=[_ALGORITHM],
                audience=_AUDIENCE,
                options={"require": ["exp", "sub", "aud"], "verify_exp": False, "verify_iat": False},
            )
            return self._from_claims(claims)
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError):
            raise Unauthorized() from None

    def _from_claims(self, claims: dict[str, Any]) -> Principal:
        if self._clock.now() >= float(claims["exp"]):
            raise Unauthorized()
        key = str(claims["key"])
        if key not in {name for name, _ in self._digests}:
            raise Unauthorized()
        team = claims.get("team")
        session = claims.get("session")
        role = Role(claims["role"])
        if role is Role.GUEST or (role is Role.SESSION) != bool(session):
            raise Unauthorized()
        expires_at = float(claims["exp"])
        return Principal(
            key,
            role,
            str(claims["sub"]),
            str(team) if team else None,
            expires_at,
            str(session) if session else None,
        )

    def first_key(self) -> Principal:
        """Who acts for the server's own pages: the first API key. Raises Unauthorized when there is none."""
        if not self._digests:
            raise Unauthorized()
        return Principal(self._digests[0][0], Role.SERVICE)

    def guest(self) -> Principal:
        """Who acts where practising is open to anyone: nobody, under the first API key."""
        return Principal(self.first_key().key, Role.GUEST)

    def issue_join(self, key: str, *, user_id: str, session_id: str, ttl_s: int = MAX_TTL_S) -> str:
        """A join token: lets whoever has it take part in this one practice session, as its user."""
        claims = {
            "aud": _AUDIENCE,
            "sub": user_id,
            "role": Role.SESSION.value,
            "session": session_id,
            "key": key,
            "exp": int(self._clock.now() + ttl_s),
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM)

    def issue(
        self, principal: Principal, *, user_id: str, role: Role, team_id: str | None, ttl_s: int
    ) -> tuple[str, float]:
        """(token, expiry in seconds since the epoch). Only an API key or an admin may issue one."""
        principal.require(Role.SERVICE, Role.ADMIN)
        expires_at = self._clock.now() + min(ttl_s, MAX_TTL_S)
        claims = {
            "aud": _AUDIENCE,
            "sub": user_id,
            "role": role.value,
            "team": team_id,
            "key": principal.key,
            "exp": int(expires_at),
        }
        return jwt.encode(claims, self._secret, algorithm=_ALGORITHM), float(int(expires_at))


def _digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _derived_secret(keys: Sequence[tuple[str, str]]) -> bytes:
    """The same on every instance that knows the first API key, and useless for finding that key."""
    first = keys[0][1] if keys else ""
    return hmac.new(first.encode(), b"coach-server user tokens", hashlib.sha256).digest()
