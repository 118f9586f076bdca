"""Grants: who may do what with a key, apart from its owner."""

from http import HTTPStatus
from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import API, Audit, Endpoint, Resource
from app.http.failures import ALONE, PATH
from app.http.request import catalogue, load
from app.observability.kinds import Kind
from app.rights import Right
from app.schemas.catalogue import GrantRequest, GrantResponse

resource: Final = Resource(
    "grants", "Who may do what with a key, apart from its owner.", prefix=API
)

_GRANT: Final = GrantRequest()
_GRANTED: Final = GrantResponse()


@resource.serves(
    Endpoint(
        "GET",
        "/keys/<kid>/grants",
        answers=("GrantsResponse",),
        says="All grants of the key",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
    )
)
def grants(kid: str) -> ResponseReturnValue:
    """List the grants of a key."""
    granted = catalogue().grants(principal(), kid)
    listed = [{"principal": grantee, "operations": granted[grantee]} for grantee in granted]
    return {"kid": kid, "grants": _GRANTED.dump(listed, many=True)}


@resource.serves(
    Endpoint(
        "PUT",
        "/keys/<kid>/grants/<name:grantee>",
        body=_GRANT,
        answers=(_GRANTED,),
        says="What the principal may do now",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=(*PATH, *ALONE),
    )
)
def grant(kid: str, grantee: str) -> ResponseReturnValue:
    """Let a principal do these operations with a key, and no others.

    It replaces what was granted to that principal before, and counts at once.
    """
    operations = load(_GRANT)
    catalogue().grant(principal(), kid, grantee, operations)
    return dict(_GRANTED.dump({"kid": kid, "principal": grantee, "operations": operations}))


@resource.serves(
    Endpoint(
        "DELETE",
        "/keys/<kid>/grants/<name:grantee>",
        status=HTTPStatus.NO_CONTENT,
        says="It may do nothing any more",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=(*PATH, *ALONE),
    )
)
def revoke(kid: str, grantee: str) -> ResponseReturnValue:
    """Let a principal do nothing with a key any more."""
    catalogue().grant(principal(), kid, grantee, ())
    return "", HTTPStatus.NO_CONTENT
