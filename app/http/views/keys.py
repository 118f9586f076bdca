"""Keys: create, import, unwrap, list, read, change, tag, destroy, restore."""

from dataclasses import replace
from http import HTTPStatus
from typing import Final

from flask import Response, request
from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import API, Audit, Endpoint, Resource
from app.http.failures import (
    ALGORITHM,
    ALIAS,
    ALONE,
    AWAY,
    DECRYPTION,
    PUBLIC_HALF,
    PUBLICATION,
    QUOTA,
    STATE,
    TOKEN,
    WRAPPED,
)
from app.http.origin import require_own_page
from app.http.request import catalogue, idempotent, keyring, load, load_query
from app.observability.kinds import Kind
from app.rights import Right, Role
from app.schemas.catalogue import (
    ChangeRequest,
    DescriptionResponse,
    ListQuery,
    ListResponse,
    TagsRequest,
    TagsResponse,
)
from app.schemas.keys import CreateKeyRequest, KeyResponse, SeveralKeysResponse, UnwrapRequest
from app.schemas.wrapped import WrappingKeyRequest, WrappingKeyResponse

resource: Final = Resource(
    "keys", "Create, import, unwrap, list, read, change, tag, destroy and restore keys.", prefix=API
)

_CREATE: Final = CreateKeyRequest()
_WRAPPING: Final = WrappingKeyRequest()
_WRAPPING_KEY: Final = WrappingKeyResponse()
_UNWRAP: Final = UnwrapRequest()
_KEY: Final = KeyResponse()
_KEYS: Final = SeveralKeysResponse()
_QUERY: Final = ListQuery()
_PAGE: Final = ListResponse()
_DESCRIPTION: Final = DescriptionResponse()
_CHANGE: Final = ChangeRequest()
_NAMES: Final = TagsRequest()
_TAGS: Final = TagsResponse()


@resource.serves(
    Endpoint(
        "POST",
        "/keys",
        body=_CREATE,
        answers=(_KEY, _KEYS),
        says="The new key, or keys",
        needs=(Role.CREATOR,),
        kind=Kind.MAKE,
        audit=Audit.CHANGE,
        failures=(*ALGORITHM, *TOKEN, *WRAPPED, *QUOTA, *ALIAS),
        is_idempotent=True,
    )
)
def create() -> ResponseReturnValue:
    """Generate a key, or import one if the body holds key material.

    A body with `k` or `d` imports that key. One with `wrapped` has the token unwrap a key that
    nobody else sees, and all that is wrong with it is one answer; a pair is described by its public
    members then. `wrapped` is the key wrapped for one of `POST /wrapping-keys`, which is of no use
    afterwards, or a `.byok` file of Azure's tools as it is. Any other body has the token generate
    one. A key made with an `alg` does that and nothing else. RSA pairs are generated, and checked
    to be imported, in a lane of their own: 503 while it is full. Generated pairs that sign are
    published, but none when as many are published as may be. With `storage` `wrapped` the registry
    keeps the key, encrypted by the token, which unwraps it to use it; with `count` as many are
    generated, all or none, and the answer is `keys`.
    """
    body = load(_CREATE)
    made = keyring().imports.create(principal(), body, idempotent())
    return dict((_KEY if body.count is None else _KEYS).dump(made))


@resource.serves(
    Endpoint(
        "POST",
        "/wrapping-keys",
        body=_WRAPPING,
        answers=(_WRAPPING_KEY,),
        says="The key to wrap for",
        needs=(Role.CREATOR,),
        kind=Kind.MAKE,
        audit=Audit.CHANGE,
        failures=(*ALGORITHM, *TOKEN, *QUOTA),
    )
)
def wrapping_key() -> ResponseReturnValue:
    """Make a key to wrap another one for, to import that.

    An RSA pair of 3072 bits, whose private half unwraps in the token and does nothing else, for one
    import, of the caller alone, or a day. A key is wrapped for it as PKCS#11 v2.40 §2.1.21 has it
    (CKM_RSA_AES_KEY_WRAP): a new AES key, encrypted by `alg` to `jwk`, and behind it AES-KWP (RFC
    5649), under that key, of the PKCS#8 of a private key or of the bytes of a secret one.
    `jose-hsm keys wrap` does it.
    """
    load(_WRAPPING)
    return dict(_WRAPPING_KEY.dump(keyring().imports.wrapping_key(principal())))


@resource.serves(
    Endpoint(
        "POST",
        "/keys/unwrap",
        body=_UNWRAP,
        answers=(_KEY,),
        says="The new key, an `oct` key of the `enc` of the header",
        needs=(Right.UNWRAP, Role.CREATOR),
        kind=Kind.MAKE,
        audit=Audit.CHANGE,
        failures=(*ALGORITHM, *TOKEN, *DECRYPTION, *QUOTA),
        is_idempotent=True,
    )
)
def unwrap() -> ResponseReturnValue:
    """Keep the CEK of a JWE, in any form that decrypt takes, as a key of its own.

    The caller needs the right `unwrap` on the key that the header names, and must be allowed to
    make keys.
    """
    body = load(_UNWRAP)
    creation = keyring().creation
    if "recipients" in body:
        several = body["recipients"], body["kid"]
        key = creation.unwrap_general(principal(), *several, idempotent())
    else:
        one = body["protected"], body["encrypted_key"]
        key = creation.unwrap(principal(), *one, idempotent())
    return dict(_KEY.dump(key))


@resource.serves(
    Endpoint(
        "GET",
        "/keys",
        query=_QUERY,
        answers=(_PAGE,),
        says="A page of keys, in the order of their kids",
        kind=Kind.MANAGE,
    )
)
def page() -> ResponseReturnValue:
    """List the keys that the caller may read.

    Every filter that is given must hold. Auditors and administrators see all keys, others their
    own and those on which they have the right `read`.
    """
    query = load_query(_QUERY)
    return dict(_PAGE.dump(catalogue().page(principal(), query)))


@resource.serves(
    Endpoint(
        "GET",
        "/keys/<kid>",
        answers=(_DESCRIPTION,),
        says="The key",
        needs=(Right.READ,),
        kind=Kind.MANAGE,
    )
)
def read(kid: str) -> ResponseReturnValue:
    """Return everything that is known of a key."""
    return dict(_DESCRIPTION.dump(catalogue().read(principal(), kid)))


@resource.serves(
    Endpoint(
        "GET",
        "/keys/<kid>/public.pem",
        says="SubjectPublicKeyInfo in PEM",
        media_types=("application/x-pem-file",),
        needs=(Right.READ,),
        kind=Kind.MANAGE,
        failures=PUBLIC_HALF,
    )
)
def public_pem(kid: str) -> ResponseReturnValue:
    """Return the public half of a key in PEM."""
    return Response(catalogue().public_pem(principal(), kid), mimetype="application/x-pem-file")


@resource.serves(
    Endpoint(
        "PATCH",
        "/keys/<kid>",
        body=_CHANGE,
        answers=(_DESCRIPTION,),
        says="The key as it is now",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=(*STATE, *ALONE, *QUOTA, *ALIAS, *AWAY),
    )
)
def change(kid: str) -> ResponseReturnValue:
    """Change the state, expiry, name, alias or owner of a key.

    What is absent stays. A deactivated or compromised key still decrypts and verifies; nothing
    leads back from `compromised`. One that its owner gives away loses the tag `jwks`, which the
    new owner may give it again.
    """
    body = load(_CHANGE)
    return dict(_DESCRIPTION.dump(catalogue().change(principal(), kid, body)))


@resource.serves(
    Endpoint(
        "DELETE",
        "/keys/<kid>",
        status=HTTPStatus.NO_CONTENT,
        says="It is gone",
        needs=(Right.DESTROY,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=TOKEN,
    )
)
def destroy(kid: str) -> ResponseReturnValue:
    """Destroy a key, both halves of a pair.

    Whichever half `kid` names. From then on both kids are 404. If the key has `destroy_after`, or
    the service a default of it, the key is `destroying` until then, of no use, and `restore` brings
    it back; only GET and lists still show it.
    """
    keyring().creation.destroy(principal(), kid)
    return "", HTTPStatus.NO_CONTENT


@resource.serves(
    Endpoint(
        "POST",
        "/keys/<kid>/restore",
        answers=(_DESCRIPTION,),
        says="The key as it is now",
        needs=(Right.MANAGE,),
        kind=Kind.MANAGE,
        audit=Audit.CHANGE,
        failures=STATE,
    )
)
def restore(kid: str) -> ResponseReturnValue:
    """Bring back a key that is to be destroyed, as it was before.

    With its state, alias, tags and grants, until `destroys`. From then on it is destroyed.
    """
    require_own_page()
    return dict(_DESCRIPTION.dump(catalogue().restore(principal(), kid)))


@resource.serves(
    Endpoint(
        "GET",
        "/keys/<kid>/tags",
        answers=(_TAGS,),
        says="All tags of the key",
        needs=(Right.READ,),
        kind=Kind.MANAGE,
    )
)
def tags(kid: str) -> ResponseReturnValue:
    """Return the tags of a key."""
    return dict(_TAGS.dump({"kid": kid, "tags": catalogue().tags(principal(), kid)}))


_TAGGING: Final = Endpoint(
    "POST",
    "/keys/<kid>/tags",
    body=_NAMES,
    answers=(_TAGS,),
    says="All tags of the key now",
    needs=(Right.TAG,),
    kind=Kind.MANAGE,
    audit=Audit.CHANGE,
    failures=(*PUBLICATION, *ALONE),
    more="POST adds those of the body. The tag `jwks` publishes the public half of a pair, until "
    "as many are published as may be: then it is 422, and none is added.",
)
_UNTAGGING: Final = replace(
    _TAGGING,
    method="DELETE",
    failures=ALONE,
    more="DELETE removes those of the body, whether the key has them or not.",
)


@resource.serves(_UNTAGGING)
@resource.serves(_TAGGING)
def change_tags(kid: str) -> ResponseReturnValue:
    """Add tags to a key, or remove them."""
    body = load(_NAMES)
    change = catalogue().tag if request.method == "POST" else catalogue().untag
    return dict(_TAGS.dump({"kid": kid, "tags": change(principal(), kid, body["tags"])}))
