"""Grants: who may do what with a key, apart from its owner."""

from http import HTTPStatus
from typing import Final

from flask import Blueprint
from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.request import catalogue, load
from app.schemas.catalogue import GrantRequest, GrantResponse

blueprint: Final = Blueprint("grants", __name__)

_GRANT: Final = GrantRequest()
_GRANTED: Final = GrantResponse()


@blueprint.get("/keys/<kid>/grants")
def grants(kid: str) -> ResponseReturnValue:
    """List the grants of a key."""
    granted = catalogue().grants(principal(), kid)
    listed = [{"principal": grantee, "operations": granted[grantee]} for grantee in granted]
    return {"kid": kid, "grants": _GRANTED.dump(listed, many=True)}


@blueprint.put("/keys/<kid>/grants/<name:grantee>")
def grant(kid: str, grantee: str) -> ResponseReturnValue:
    """Let a principal do these operations with a key, and no others."""
    operations = load(_GRANT)
    catalogue().grant(principal(), kid, grantee, operations)
    return dict(_GRANTED.dump({"kid": kid, "principal": grantee, "operations": operations}))


@blueprint.delete("/keys/<kid>/grants/<name:grantee>")
def revoke(kid: str, grantee: str) -> ResponseReturnValue:
    """Let a principal do nothing with a key any more."""
    catalogue().revoke(principal(), kid, grantee)
    return "", HTTPStatus.NO_CONTENT
