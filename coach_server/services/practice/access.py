"""Who may do what with practice sessions (contract §10.1: the caller must own the session)."""

from __future__ import annotations

import re

from coach_server.errors import Forbidden, Invalid, NotFound
from coach_server.services.access import Principal, Role
from coach_server.storage.roleplays import Session

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
# Who may act for any user of the API key: its own back end, an admin, and guests where anyone may practise.
_FOR_ANYONE = (Role.SERVICE, Role.ADMIN, Role.GUEST)


def unknown() -> NotFound:
    """The same for a session that is not there and for one of somebody else."""
    return NotFound("There is no such session.", field="sessionId")


def may_act(principal: Principal, session: Session) -> bool:
    """Whether this caller may take part in the session and change it."""
    if session.principal != principal.key:
        return False
    if principal.role is Role.SESSION:
        return principal.session_id == session.id
    return principal.role in _FOR_ANYONE or session.user_id == principal.user_id


def may_see(principal: Principal, session: Session) -> bool:
    """As `may_act`; a manager also sees the sessions of the team."""
    return may_act(principal, session) or _is_of_team(principal, session.principal, session.team_id)


def _is_of_team(principal: Principal, key: str, team_id: str | None) -> bool:
    mine = principal.role is Role.MANAGER and principal.team_id is not None
    return mine and key == principal.key and team_id == principal.team_id


def acts_for(principal: Principal, user_id: str) -> bool:
    """Whether the caller may act for this user of its API key."""
    return principal.role in _FOR_ANYONE or (
        principal.user_id == user_id and principal.role is not Role.SESSION
    )


def acting_user(principal: Principal, named: str | None) -> str:
    """The user to act for: the one named, who must be the caller unless the caller acts for anyone. Raises
    Invalid (nobody named), Forbidden."""
    if principal.role in _FOR_ANYONE:
        if named is None:
            raise Invalid("userId is required.", field="userId")
        return named
    if principal.user_id is None or named not in (None, principal.user_id):
        raise Forbidden("This is for the user, an admin or the API key.")
    return principal.user_id


def require_reader(principal: Principal, user_id: str, team_id: str | None) -> None:
    """Whether the caller may read what `user_id` practised; `team_id` is that user's. Raises Forbidden."""
    if principal.role in _FOR_ANYONE or principal.user_id == user_id:
        return
    if not _is_of_team(principal, principal.key, team_id):
        raise Forbidden("This is for the user, the team's manager, an admin or the API key.")
