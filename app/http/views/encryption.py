"""JWE: encrypt and decrypt."""

from typing import Final

from flask.typing import ResponseReturnValue

from app.http.endpoint import API, Resource
from app.http.failures import DECRYPTION
from app.http.operations import OPERATIONS
from app.http.request import perform

resource: Final = Resource("encryption", "JWE (RFC 7516).", prefix=API)


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
