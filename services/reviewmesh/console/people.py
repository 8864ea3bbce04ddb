"""Who uses the page, and what each role may do."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from starlette.requests import Request

from reviewmesh.settings import SigninSettings

NAME_SHOWN = 200


class Role(IntEnum):
    """Each may do what those before it may."""

    VIEWER = 1
    OPERATOR = 2
    OWNER = 3

    @property
    def words(self) -> str:
        return self.name.lower()

    @property
    def at_least(self) -> str:
        """Who has this role or a higher one."""
        return " or ".join(f"an {role.words}" for role in Role if role >= self)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may see the page."""

    name: str
    """For people: of the claims or the header, as it came."""
    subject: str
    """What the provider never gives to anybody else; the name, if a proxy says who it is."""
    role: Role
    until: float
    """Seconds since 1970 at which they show again who they are; streams end then."""
    can_sign_out: bool = False


def person_of(request: Request) -> Person:
    """Who asks: everybody who passed the gate is somebody."""
    person: Person = request.state.person
    return person


ANYBODY = Person("anybody on this machine", "", Role.OWNER, math.inf)
"""Where nobody signs in."""


def role_among(settings: SigninSettings, values: Collection[str]) -> Role | None:
    """The highest that one of the values gives."""
    given = (
        (Role.OWNER, settings.owners),
        (Role.OPERATOR, settings.operators),
        (Role.VIEWER, settings.viewers),
    )
    return next((role for role, names in given if not set(names).isdisjoint(values)), None)


def values_of(claims: Mapping[str, Any], claim: str) -> tuple[str, ...]:
    """Of a claim with this name; else dots lead into objects."""
    found: Any = claims.get(claim)
    if found is None:
        found = claims
        for part in claim.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
    if isinstance(found, str):
        return (found,)
    return tuple(str(value) for value in found) if isinstance(found, list) else ()


def name_of(claims: Mapping[str, Any]) -> str:
    """What people would call them."""
    names = (claims.get(claim) for claim in ("email", "preferred_username", "name", "sub"))
    return next(name[:NAME_SHOWN] for name in names if isinstance(name, str) and name)
