"""Keys on the admin page: those that one may read, each with all that is known of it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.duration import write_duration
from app.http.endpoint import Endpoint
from app.http.failures import AWAY, QUERY
from app.http.request import catalogue, service
from app.http.views.admin.page import go_to, part, query, render, rights_on
from app.http.views.admin.purposes import groups
from app.observability.kinds import Kind
from app.rights import GRANTABLE, Right
from app.schemas.catalogue import SHOWN_STATES, STATES, ListQuery, cursor_of

resource: Final = part("admin_keys", "Keys.")

_QUERY: Final = ListQuery()
_DELETED: Final = "destroying"
"""The state of a key that can be had back, and of which nothing else can be asked."""


@resource.serves(Endpoint("GET", "/admin", kind=Kind.PAGE, failures=QUERY))
def page() -> ResponseReturnValue:
    """List the keys that the caller may read, or go to the one that is named."""
    asked = query()
    if kid := asked.pop("key", "").strip():
        return go_to(f"/keys/{catalogue().read(principal(), kid)['kid']}")
    found = catalogue().page(principal(), _QUERY.load(asked))
    return render(
        "keys.html",
        keys=found.keys,
        after=cursor_of(found.after),
        asked=asked,
        states=SHOWN_STATES,
    )


@resource.serves(Endpoint("GET", "/admin/create", kind=Kind.PAGE, failures=AWAY))
def ask() -> ResponseReturnValue:
    """Ask what a new key is to be for."""
    capabilities = service().capabilities.describe(service().hsm.offers())
    return render("create.html", groups=groups(capabilities))


@resource.serves(Endpoint("GET", "/admin/keys/<kid>", needs=(Right.READ,), kind=Kind.PAGE))
def read(kid: str) -> ResponseReturnValue:
    """Show everything that is known of a key, and what the caller may do with it."""
    key = catalogue().read(principal(), kid)
    rights = rights_on(key["owner"])
    is_there = key["state"] != _DELETED
    return render(
        "key.html",
        key=key,
        rights=rights,
        had_back=key.get("destroy_after") or _destroy_after(),
        is_there=is_there,
        states=[state for state in STATES if state != key["state"]],
        operations=GRANTABLE,
        grants=_grants(key) if is_there and Right.MANAGE in rights else None,
        **(_public(key) if is_there else {}),
    )


def _destroy_after() -> str | None:
    """Return for how long keys can be had back that have no time of their own."""
    after = service().config.destroy_after
    return None if after is None else write_duration(after)


def _grants(key: Mapping[str, Any]) -> Mapping[str, list[str]]:
    return catalogue().grants(principal(), str(key["kid"]))


def _public(key: Mapping[str, Any]) -> dict[str, Any]:
    """Return the public half as people copy it, and its certificates in base64."""
    if "jwk" not in key:
        return {}
    jwk = {name: value for name, value in key["jwk"].items() if name not in {"x5c", "x5t#S256"}}
    return {
        "jwk": json.dumps(jwk, indent=2),
        "pem": catalogue().public_pem(principal(), str(key["kid"])).decode("ascii"),
        "certificates": key["jwk"].get("x5c", []),
        "thumbprint": key["jwk"].get("x5t#S256"),
    }
