"""A public key that a caller brings along (RFC 7517): checked like one that is imported."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import fields

import hsm
from app.errors import BadRequest
from app.jwk import PAIR_TYPES, PRIVATE_MEMBERS
from app.schemas.fields import fail, require_bytes

_SIGNATURE: Final = "sig"
_VERIFY: Final = "verify"

Jwk = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicJwk:
    """The key, and what its JWK says it is for."""

    key: hsm.PublicKey
    kty: str
    crv: str | None = None
    alg: str | None = None
    is_for_signatures: bool = True

    def permits(self, alg: str) -> bool:
        """Tell whether a signature of ``alg`` may be verified with it."""
        names = {None, alg, hsm.SIGNATURES[alg].jwk_alg}
        is_meant = self.is_for_signatures and self.alg in names
        return is_meant and hsm.KeySpec(kty=self.kty, alg=alg, crv=self.crv).permits(alg)


class PublicJwkField(fields.Field[Any]):
    """A JWK without private members."""

    default_error_messages = {"invalid": "must be an object"}  # noqa: RUF012  # marshmallow's name

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> PublicJwk:
        if not isinstance(value, dict):
            raise self.make_error("invalid")
        try:
            return _public_jwk(value)
        except BadRequest as error:
            fail(BadRequest(f"Field 'jwk': {error}"))


def _public_jwk(jwk: Jwk) -> PublicJwk:
    for name in PRIVATE_MEMBERS:
        if jwk.get(name) is not None:
            raise BadRequest(f"it holds the private member '{name}'")
    kty = _text(jwk, "kty")
    if kty not in PAIR_TYPES:
        raise BadRequest(f"Field 'kty' must be one of: {', '.join(PAIR_TYPES)}")
    key_type = PAIR_TYPES[kty]
    crv = _text(jwk, "crv") if key_type.crvs else None
    alg = None if jwk.get("alg") is None else _text(jwk, "alg")
    octets = {name: _octets(jwk, name) for name in key_type.public_members}
    key = key_type.read_public(crv or "", octets)
    return PublicJwk(
        key=key,
        kty=kty,
        crv=crv,
        alg=alg,
        is_for_signatures=_is_for_signatures(jwk),
    )


def _is_for_signatures(jwk: Jwk) -> bool:
    """Tell what ``use`` and ``key_ops`` say (RFC 7517 §4.2, §4.3)."""
    operations = jwk.get("key_ops")
    if operations is not None and not isinstance(operations, list):
        raise BadRequest("Field 'key_ops' must be an array of strings")
    use = None if jwk.get("use") is None else _text(jwk, "use")
    return use in {None, _SIGNATURE} and (operations is None or _VERIFY in operations)


def _text(jwk: Jwk, name: str) -> str:
    if jwk.get(name) is None:
        raise BadRequest(f"Field '{name}' is required")
    if not isinstance(jwk[name], str):
        raise BadRequest(f"Field '{name}' must be a string")
    return str(jwk[name])


def _octets(jwk: Jwk, name: str) -> bytes:
    return require_bytes(_text(jwk, name), name)
