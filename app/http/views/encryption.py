"""JWE: encrypt and decrypt."""

from typing import Final

from flask.typing import ResponseReturnValue

from app.auth import principal
from app.http.endpoint import API, Audit, Endpoint, Resource
from app.http.failures import ALGORITHM, DECRYPTION, TOKEN
from app.http.operations import OPERATIONS
from app.http.request import keyring, load, perform
from app.keys.general.rewrapping import rewrap as rewrapped
from app.observability.kinds import Kind
from app.rights import Right
from app.schemas.messages.rewrapping import (
    GeneralRewrapResponse,
    RewrapRequest,
    RewrapResponse,
)

resource: Final = Resource("encryption", "JWE (RFC 7516).", prefix=API)

_REWRAP: Final = RewrapRequest()


@resource.serves(OPERATIONS["encrypt"].alone(says="A JWE: flattened, compact or general"))
def encrypt() -> ResponseReturnValue:
    """Return a JWE of the caller's data.

    `kid` names the AES key with `dir` and `A…KW`, else the recipient's pair by either kid. The
    header names the key that decrypts. With `jwk`, the public key of somebody else, in place of
    `kid` the token is not asked. A caller may add members to the header (`header`). With
    `recipients` in place of `kid` and `alg` one message is for several keys (RFC 7516 §7.2.1): if
    one is refused, nothing is encrypted; `dir` and `ECDH-ES` have no CEK to share.
    """
    return perform(OPERATIONS["encrypt"])


@resource.serves(OPERATIONS["decrypt"].alone(says="The plaintext", failures=DECRYPTION))
def decrypt() -> ResponseReturnValue:
    """Return the plaintext of a JWE.

    A flattened JWE (RFC 7516 §7.2.2), a compact one, or one of several recipients (§7.2.1); never
    members of two. Members of the header may be in any of its parts, but none in two. Of several
    recipients that one counts which names a key that the caller may use, or the key beside.
    """
    return perform(OPERATIONS["decrypt"])


@resource.serves(
    Endpoint(
        "POST",
        "/rewrap",
        body=_REWRAP,
        answers=(RewrapResponse(), GeneralRewrapResponse()),
        says="The JWE for the other key, in the form in which it came",
        needs=(Right.DECRYPT, Right.ENCRYPT),
        kind=Kind.ENCRYPT,
        audit=Audit.USE,
        failures=(*ALGORITHM, *TOKEN, *DECRYPTION),
    )
)
def rewrap() -> ResponseReturnValue:
    """Make a JWE one for another key; nobody is told the plaintext.

    The JWE is as `decrypt` takes it, or whole as `jwe`, an object too. The caller needs `decrypt`
    on the key that it is for, and `encrypt` on the one that it is `to`. Where nothing that names
    the key is protected, only `encrypted_key` and the header of that recipient change: the content
    encryption key and the content stay, as do other recipients; it never leaves the token if `cek`
    is `token` in the capabilities of both algorithms. Any other is encrypted anew, with what its
    header holds of other things; one of several recipients is 422 then.
    """
    return dict(rewrapped(keyring().use, principal(), load(_REWRAP)))
