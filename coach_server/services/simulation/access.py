"""Who may do what with simulations: a trainee the own ones, a manager the team's, an admin and the API key's
own back end all of the key (issue 4 §5; trust.md G12)."""

from __future__ import annotations

import re

from coach_server.errors import Forbidden, Invalid, NotFound
from coach_server.services.access import Principal, Role
from coach_server.storage.simulations import Simulation, Wanted

# Ids go into paths of files (trust.md G17).
ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ALL = (Role.SERVICE, Role.ADMIN)


def unknown() -> NotFound:
    """The same for a session that is not there and for one of somebody else."""
    return NotFound("There is no such session.", field="sessionId")


def may_act(principal: Principal, session: Simulation) -> bool:
    """Whether the caller may take part in it."""
    if session.principal != principal.key:
        return False
    return principal.role in _ALL or session.trainee_id == principal.user_id


def may_see(principal: Principal, session: Simulation) -> bool:
    """As `may_act`; a manager also sees the team's."""
    if may_act(principal, session):
        return True
    is_manager = principal.role is Role.MANAGER and principal.team_id is not None
    return is_manager and session.principal == principal.key and session.team_id == principal.team_id


def visible(principal: Principal) -> Wanted:
    """The simulations that the caller may list."""
    if principal.role in _ALL:
        return Wanted(principal.key)
    if principal.role is Role.MANAGER and principal.team_id is not None:
        return Wanted(principal.key, team_id=principal.team_id)
    return Wanted(principal.key, trainee_id=principal.user_id or "")


def acting_trainee(principal: Principal, named: str | None) -> str:
    """The trainee to act for. Raises Invalid (nobody named), Forbidden."""
    if principal.role in _ALL:
        if not named:
            raise Invalid("traineeId is required.", field="traineeId")
        return named
    if principal.user_id is None or named not in (None, principal.user_id):
        raise Forbidden("This is for the trainee, an admin or the API key.")
    return principal.user_id
