"""JWS: sign, verify, and the MAC."""

from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import API, Audit, Endpoint, Resource
from app.http.failures import ALGORITHM, TOKEN
from app.http.operations import OPERATIONS
from app.http.request import keyring, load, perform
from app.observability.kinds import Kind
from app.rights import Right
from app.schemas.messages.raw_signing import RawSignRequest, RawSignResponse

resource: Final = Resource("signing", "JWS (RFC 7515), and the MAC.", prefix=API)

_RAW: Final = RawSignRequest()
_SIGNED: Final = RawSignResponse()


@resource.serves(OPERATIONS["sign"].alone(says="A JWS: detached, compact or general"))
def sign() -> ResponseReturnValue:
    """Return a JWS over the caller's data.

    The header names the key that verifies: the public half of a generated pair. A caller may add
    members to it (`header`), or write all of it (`protected`), and have data signed that is not
    encoded (RFC 7797); its compact form is detached then. Several keys may sign the same data
    (`signers`, RFC 7515 §7.2.1): if one is refused, none signs.
    """
    return perform(OPERATIONS["sign"])


@resource.serves(
    Endpoint(
        "POST",
        "/keys/<kid>/sign",
        body=_RAW,
        answers=(_SIGNED,),
        says="The signature",
        needs=(Right.SIGN_RAW,),
        kind=Kind.SIGN,
        audit=Audit.USE,
        failures=(*ALGORITHM, *TOKEN),
    )
)
def sign_raw(kid: str) -> ResponseReturnValue:
    """Sign data, or a digest of it, as it is.

    What is signed gets no header: whoever may do this can make any JWS of the key, so it has a
    right of its own. `digest` is as long as the hash of `alg`. EC keys sign digests, RSA keys if
    they were made with `digest`, others never.
    """
    body = load(_RAW)
    signature = keyring().use.sign_raw(principal(), kid=kid, **body)
    return _SIGNED.dump({"kid": kid, "alg": body["alg"], "signature": signature})


@resource.serves(OPERATIONS["verify"].alone(says="Whether it is valid"))
def verify() -> ResponseReturnValue:
    """Tell whether a JWS is valid.

    A detached JWS and its data, a flattened one (RFC 7515 §7.2.2) or a compact one, with its
    payload or beside `data`; never members of two. A header without `kid` needs `kid` or `jwk`
    beside the message; with `jwk` the token is not asked. A JWS with a MAC (HS256…) takes the right
    `mac`. Of several signatures (§7.2.1) those of keys that the caller may verify with are looked
    at. A signature that does not fit is an answer, not an error.
    """
    return perform(OPERATIONS["verify"])


@resource.serves(
    OPERATIONS["mac"].alone(says="The MAC, a JWS with it, or with `mac` whether that is it")
)
def mac() -> ResponseReturnValue:
    """Return the MAC of the caller's data, or tell whether the given one is it.

    Without `mac` it computes, with `mac` it compares. With `serialization` it makes a whole JWS, as
    `sign` does.
    """
    return perform(OPERATIONS["mac"])
