"""All endpoints of the service, and what hooks have to know of them, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flask import Flask
from werkzeug.exceptions import MethodNotAllowed, NotFound

from app.auth.schemes import Audience
from app.http import failures
from app.http.answers import status_of
from app.http.endpoint import Audit, Endpoint, Resource, Takes
from app.http.operations import OPERATIONS
from app.http.paths import NameConverter
from app.http.views import (
    admin,
    batch,
    capabilities,
    certificates,
    docs,
    encryption,
    grants,
    health,
    index,
    jwks,
    keys,
    openapi,
    random,
    signing,
    status,
)
from app.http.views.sets import keysets, versions
from app.observability.kinds import Kind
from app.observability.requests import NO_ENDPOINT

API: Final[tuple[Resource, ...]] = tuple(
    view.resource
    for view in (
        *(keys, grants, certificates, keysets, versions, encryption, signing, random),
        *(batch, capabilities),
        *(jwks, index, health, openapi),
    )
)
"""What programs ask, in the order of the documents."""

PAGES: Final[tuple[Resource, ...]] = (docs.resource, status.resource)
"""What people look at."""

ADMIN: Final[tuple[Resource, ...]] = admin.RESOURCES
"""Where people manage keys, which is not served unless it is asked for."""

ENDPOINTS: Final[tuple[Endpoint, ...]] = tuple(
    endpoint for resource in (*API, *PAGES, *ADMIN) for endpoint in resource.endpoints
)
KINDS: Final[Mapping[str, Kind]] = MappingProxyType({one.name: one.kind for one in ENDPOINTS})
AUDITS: Final[Mapping[str, Audit]] = MappingProxyType({one.name: one.audit for one in ENDPOINTS})
AUDIENCE: Final = Audience(
    everybody=frozenset(one.name for one in ENDPOINTS if one.is_public),
    browsers=frozenset(one.name for one in ENDPOINTS if one.takes is Takes.PASSWORDS),
    forms=frozenset(one.name for one in ENDPOINTS if one.takes is Takes.FORMS),
)
CROSS_ORIGIN: Final = frozenset(one.name for one in ENDPOINTS if one.is_cross_origin)
LONG: Final = frozenset(one.name for one in ENDPOINTS if one.is_long)
DIRECT: Final = frozenset(operation.endpoint for operation in OPERATIONS.values())
"""What is asked all the time; see ``Application``."""
CHANGES: Final = frozenset(
    one.name for one in ENDPOINTS if one.audit is Audit.CHANGE and one.kind is not Kind.MAKE
)
"""What ``restore`` lists: a key that was made since is none of the backup."""

_NOWHERE: Final = (*failures.EVERYWHERE, *failures.CALLER, NotFound(), MethodNotAllowed())
ANSWERS: Final[tuple[tuple[str, int], ...]] = (
    *((one.name, one.status) for one in ENDPOINTS),
    *((one.name, status_of(failure)) for one in ENDPOINTS for failure in one.all_failures),
    *((NO_ENDPOINT, status_of(failure)) for failure in _NOWHERE),
)
"""Endpoints and the statuses that each may answer, some of them more than once."""
PARTS: Final = tuple((name, status) for name, status in ANSWERS if name in DIRECT)
"""The same for parts of batches."""


def route(app: Flask, *, pages: bool, admin_page: bool = False) -> None:
    """Give ``app`` every endpoint of the service, with or without the ``pages`` for people.

    The ``admin_page`` is made of files that come with them.
    """
    app.url_map.converters["name"] = NameConverter
    for resource in (*API, *(PAGES if pages else ()), *(ADMIN if pages and admin_page else ())):
        app.register_blueprint(resource.blueprint)
