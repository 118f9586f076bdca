"""Key sets: make, list, read, change, destroy, and who may do what with them."""

from http import HTTPStatus
from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import API, Audit, Endpoint, Resource
from app.http.failures import ALGORITHM, KEYSET, PATH, PUBLICATION, QUOTA, TOKEN
from app.http.request import keysets, load, load_query
from app.observability.kinds import Kind
from app.rights import Right, Role
from app.schemas.catalogue import GrantRequest, GrantResponse
from app.schemas.keysets import (
    KeySetResponse,
    KeySetsQuery,
    KeySetsResponse,
    PutKeySetRequest,
)

resource: Final = Resource(
    "keysets",
    "Key sets: names whose keys follow one another, in time for all verifiers.",
    prefix=API,
)

_PUT: Final = PutKeySetRequest()
_KEYSET: Final = KeySetResponse()
_QUERY: Final = KeySetsQuery()
_PAGE: Final = KeySetsResponse()
_GRANT: Final = GrantRequest()
_GRANTED: Final = GrantResponse()


@resource.serves(
    Endpoint(
        "PUT",
        "/keysets/<keyset>",
        body=_PUT,
        answers=(_KEYSET,),
        says="The key set as it is now",
        needs=(Role.CREATOR,),
        kind=Kind.MAKE,
        audit=Audit.CHANGE,
        failures=(*ALGORITHM, *TOKEN, *QUOTA, *KEYSET, *PUBLICATION),
    )
)
def put(keyset: str) -> ResponseReturnValue:
    """Make a key set with its first version, or change when its versions follow one another.

    A version is published `publish_ahead` before it is current, which is at least as long as a
    JWKS may be kept; it is current for `every`, and published for `retain` after that. Without
    `rotation` versions follow one another on request only: the next one is published for as long
    as a JWKS may be kept, and those before stay published. What the keys are cannot be changed.
    """
    return dict(_KEYSET.dump(keysets().put(principal(), keyset, load(_PUT))))


@resource.serves(
    Endpoint(
        "GET",
        "/keysets",
        query=_QUERY,
        answers=(_PAGE,),
        says="A page of key sets, in the order of their names",
        kind=Kind.MANAGE,
    )
)
def page() -> ResponseReturnValue:
    """List the key sets that the caller may read."""
    return dict(_PAGE.dump(keysets().page(principal(), **load_query(_QUERY))))


@resource.serves(
    Endpoint(
        "GET",
        "/keysets/<keyset>",
        answers=(_KEYSET,),
        says="The key set",
        needs=(Right.READ,),
        kind=Kind.MANAGE,
    )
)
def read(keyset: str) -> ResponseReturnValue:
    """Return everything that is known of a key set and its versions."""
    return dict(_KEYSET.dump(keysets().read(principal(), keyset)))


@resource.serves(
    Endpoint(
        "DELETE",
        "/keysets/<keyset>",
        status=HTTPStatus.NO_CONTENT,
        says="It is gone",
        needs=(Right.DESTROY,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=TOKEN,
    )
)
def destroy(keyset: str) -> ResponseReturnValue:
    """Destroy a key set with all its versions.

    With `destroy_after`, of the set or by default of the service, its keys are `destroying` until
    then, and each can be restored as a key of its own.
    """
    keysets().destroy(principal(), keyset)
    return "", HTTPStatus.NO_CONTENT


@resource.serves(
    Endpoint(
        "GET",
        "/keysets/<keyset>/grants",
        answers=("KeySetGrantsResponse",),
        says="All grants of the key set",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
    )
)
def grants(keyset: str) -> ResponseReturnValue:
    """List the grants of a key set, which hold for every version."""
    granted = keysets().grants(principal(), keyset)
    listed = [{"principal": grantee, "operations": granted[grantee]} for grantee in granted]
    return {"keyset": keyset, "grants": _GRANTED.dump(listed, many=True)}


@resource.serves(
    Endpoint(
        "PUT",
        "/keysets/<keyset>/grants/<name:grantee>",
        body=_GRANT,
        answers=(_GRANTED,),
        says="What the principal may do now",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=PATH,
    )
)
def grant(keyset: str, grantee: str) -> ResponseReturnValue:
    """Let a principal do these operations with every version of a key set, and no others.

    It replaces what was granted to that principal before, and counts at once.
    """
    operations = load(_GRANT)
    keysets().grant(principal(), keyset, grantee, operations)
    return dict(_GRANTED.dump({"principal": grantee, "operations": operations}))


@resource.serves(
    Endpoint(
        "DELETE",
        "/keysets/<keyset>/grants/<name:grantee>",
        status=HTTPStatus.NO_CONTENT,
        says="It may do nothing any more",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=PATH,
    )
)
def ungrant(keyset: str, grantee: str) -> ResponseReturnValue:
    """Let a principal do nothing with a key set any more."""
    keysets().grant(principal(), keyset, grantee, ())
    return "", HTTPStatus.NO_CONTENT
