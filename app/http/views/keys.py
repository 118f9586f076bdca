"""Keys: create, import, unwrap, list, read, change, tag, destroy."""

from http import HTTPStatus
from typing import Final

from flask import Blueprint, Response, request
from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.request import catalogue, idempotent, keyring, load, load_query
from app.schemas.catalogue import (
    ChangeRequest,
    DescriptionResponse,
    ListQuery,
    ListResponse,
    TagsRequest,
    TagsResponse,
)
from app.schemas.keys import CreateKeyRequest, KeyResponse
from app.schemas.messages import UnwrapRequest

blueprint: Final = Blueprint("keys", __name__)

_CREATE: Final = CreateKeyRequest()
_UNWRAP: Final = UnwrapRequest()
_KEY: Final = KeyResponse()
_QUERY: Final = ListQuery()
_PAGE: Final = ListResponse()
_DESCRIPTION: Final = DescriptionResponse()
_CHANGE: Final = ChangeRequest()
_NAMES: Final = TagsRequest()
_TAGS: Final = TagsResponse()


@blueprint.post("/keys")
def create() -> ResponseReturnValue:
    """Generate a key, or import one if the body holds key material."""
    body = load(_CREATE)
    return dict(_KEY.dump(keyring().create(principal(), body, idempotent())))


@blueprint.post("/keys/unwrap")
def unwrap() -> ResponseReturnValue:
    """Keep the CEK of a JWE as a key of its own."""
    body = load(_UNWRAP)
    key = keyring().unwrap(principal(), body["protected"], body["encrypted_key"], idempotent())
    return dict(_KEY.dump(key))


@blueprint.get("/keys")
def page() -> ResponseReturnValue:
    """List the keys that the caller may read."""
    query = load_query(_QUERY)
    return dict(_PAGE.dump(catalogue().page(principal(), query)))


@blueprint.get("/keys/<kid>")
def read(kid: str) -> ResponseReturnValue:
    """Return everything that is known of a key."""
    return dict(_DESCRIPTION.dump(catalogue().read(principal(), kid)))


@blueprint.get("/keys/<kid>/public.pem")
def public_pem(kid: str) -> ResponseReturnValue:
    """Return the public half of a key in PEM."""
    return Response(catalogue().public_pem(principal(), kid), mimetype="application/x-pem-file")


@blueprint.patch("/keys/<kid>")
def change(kid: str) -> ResponseReturnValue:
    """Change the state, expiry, name or owner of a key."""
    body = load(_CHANGE)
    return dict(_DESCRIPTION.dump(catalogue().change(principal(), kid, body)))


@blueprint.delete("/keys/<kid>")
def destroy(kid: str) -> ResponseReturnValue:
    """Destroy a key, both halves of a pair."""
    keyring().destroy(principal(), kid)
    return "", HTTPStatus.NO_CONTENT


@blueprint.get("/keys/<kid>/tags")
def tags(kid: str) -> ResponseReturnValue:
    """Return the tags of a key."""
    return dict(_TAGS.dump({"kid": kid, "tags": catalogue().tags(principal(), kid)}))


@blueprint.route("/keys/<kid>/tags", methods=["POST", "DELETE"])
def change_tags(kid: str) -> ResponseReturnValue:
    """Add tags to a key, or remove them."""
    body = load(_NAMES)
    change = catalogue().tag if request.method == "POST" else catalogue().untag
    return dict(_TAGS.dump({"kid": kid, "tags": change(principal(), kid, body["tags"])}))
