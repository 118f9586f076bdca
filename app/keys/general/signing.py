"""Signing one payload with several keys (RFC 7515 §7.2.1)."""

from collections.abc import Mapping, Sequence
from typing import Any

from app import current_request
from app.keys.access import Existing, KeysOfMessage, require_signer
from app.keys.headers import signing_input_of
from app.keys.use import KeyUse
from app.registry import Key
from app.rights import Principal, Right
from app.schemas.messages.caller_header import CallerHeader
from app.schemas.messages.signers import Signer


def sign_general(  # noqa: PLR0913  # the members of the request
    use: KeyUse,
    principal: Principal,
    *,
    signers: Sequence[Signer],
    data: str,
    media_types: Mapping[str, str],
    header: CallerHeader | None,
) -> dict[str, Any]:
    """Return a JWS with a protected header and a signature of each signer, in their order.

    All is checked before the first signs. Raises what ``KeyUse.sign`` does for any of them.
    """
    keys = _keys_of(use, principal, signers)
    headers = [
        use.jws_header(key, one.alg, media_types, header)
        for key, one in zip(keys, signers, strict=True)
    ]
    signatures = []
    for key, one, protected in zip(keys, signers, headers, strict=True):
        signing_input = signing_input_of(protected, data, header)
        with Existing(use.registry, key):
            signature = use.hsm.sign(key.ref, one.alg, signing_input)
        signatures.append({"protected": protected, "signature": signature})
    is_encoded = header is None or header.is_encoded
    return ({"payload": data} if is_encoded else {}) | {"signatures": signatures}


def _keys_of(use: KeyUse, principal: Principal, signers: Sequence[Signer]) -> list[Key]:
    """Return the key of each, read at once; the logs name the one that is refused."""
    rows = KeysOfMessage(use.rows, principal, frozenset(one.kid for one in signers))
    keys = []
    for one in signers:
        current_request.name_next(kid=one.kid, alg=one.alg)
        key = rows.find(one.kid, Right.SIGN)
        require_signer(key, one.kid, one.alg)
        keys.append(key)
    current_request.name_several([str(key.kid) for key in keys], signers[0].alg)
    return keys
