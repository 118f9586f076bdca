"""Which keys an ``alg`` of JWTs takes, and the signatures that they made."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from joserfc.jws import JWSRegistry

from app.auth.issuer_keys import PublicKey


class _Kind(NamedTuple):
    """Keys of a type, on one of these curves if it has any."""

    kty: str
    crvs: tuple[str | None, ...] = (None,)


_RSA: Final = _Kind("RSA")
_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), _RSA),
        "ES256": _Kind("EC", ("P-256",)),
        "ES384": _Kind("EC", ("P-384",)),
        "ES512": _Kind("EC", ("P-521",)),
        "EdDSA": _Kind("OKP", ("Ed25519", "Ed448")),
        "Ed25519": _Kind("OKP", ("Ed25519",)),
    }
)
_OLD_NAMES: Final[Mapping[str, str]] = MappingProxyType({"Ed25519": "EdDSA"})  # RFC 9864 §2.2


def is_meant(key: PublicKey, header: Mapping[str, Any]) -> bool:
    """Tell whether ``header``, whose ``alg`` is one of ours, may be that of a JWT by ``key``."""
    members, kind = key.as_dict(private=False), _KINDS[header["alg"]]
    return (
        header.get("kid", members.get("kid")) == members.get("kid")
        and members.get("kty") == kind.kty
        and members.get("crv") in kind.crvs
        and members.get("use", "sig") == "sig"
        and _old(members.get("alg", header["alg"])) == _old(header["alg"])
    )


def verifies(key: PublicKey, alg: str, signing_input: bytes, signature: bytes) -> bool:
    """Tell whether ``signature`` is one by ``key``; raise ``JoseError`` if it may not verify."""
    return bool(JWSRegistry.algorithms[alg].verify(signing_input, signature, key))


def _old(alg: Any) -> str:
    return _OLD_NAMES.get(alg, alg)
