"""A public key that a caller brings along (RFC 7517): checked like one that is imported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import hsm
from app.errors import BadRequest
from app.jwk import PAIR_TYPES, PRIVATE_MEMBERS, write_public
from app.jwk.key_type import PairType
from app.jwk.members import Octets
from app.schemas.fields import JsonObject, fail, refusal, require_bytes

AGREEMENT_CRVS: Final[Mapping[str, tuple[str, ...]]] = {
    kty: tuple(crv for crv in hsm.algorithms_by_crv(kty, next(iter(hsm.KEY_AGREEMENTS))) if crv)
    for kty in PAIR_TYPES
}
"""The curves of ECDH-ES, by key type."""

Jwk = Mapping[str, Any]


def _read_signer(row: PairType, crv: str, octets: Octets) -> hsm.PublicKey:
    return row.read_public(crv, octets)


def _read_recipient(row: PairType, crv: str, octets: Octets) -> hsm.PublicKey:
    if row.read_epk is None:
        return row.read_public(crv, octets)
    if crv not in AGREEMENT_CRVS[row.kty]:
        known = ", ".join(AGREEMENT_CRVS[row.kty])
        raise BadRequest(f"Field 'crv' must be one of these for key type '{row.kty}': {known}")
    return row.read_epk(crv, octets)


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Whose key is brought: what RFC 7517 §4.2 and §4.3 call its use, and how it is read."""

    use: str
    operations: frozenset[str]
    read: Callable[[PairType, str, Octets], hsm.PublicKey]


SIGNER: Final = Party(use="sig", operations=frozenset({"verify"}), read=_read_signer)
RECIPIENT: Final = Party(
    use="enc",
    operations=frozenset({"encrypt", "wrapKey", "deriveKey", "deriveBits"}),
    read=_read_recipient,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicJwk:
    """The key, and what its JWK says it is for and is called."""

    key: hsm.PublicKey
    kty: str
    crv: str | None = None
    alg: str | None = None
    kid: str | None = None
    is_meant: bool = True

    def require_fit(self, alg: str) -> None:
        """Refuse it for an algorithm that it is not for."""
        if not self._permits(alg):
            fail(hsm.CryptoFailure(f"The key does not permit {alg}"), "jwk")

    def require_offered(self, alg: str) -> None:
        """Refuse a curve on which this token lacks the algorithm."""
        reason = refusal(alg, self.crv)
        if reason is not None:
            fail(hsm.UnsupportedAlgorithm.not_offered(alg, reason), "jwk")

    def _permits(self, alg: str) -> bool:
        named = {self.alg, write_public(self.key).get("alg")} - {None} or {alg}
        specs = [hsm.KeySpec(kty=self.kty, alg=name, crv=self.crv) for name in named]
        return self.is_meant and all(spec.permits_under_any_name(alg) for spec in specs)


class PublicJwkField(JsonObject):
    """A JWK without private members."""

    def __init__(self, party: Party, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.party = party

    def _deserialize(self, value: Any, *_args: Any, **_kwargs: Any) -> PublicJwk:
        try:
            return _public_jwk(self._object(value), self.party)
        except BadRequest as error:
            fail(BadRequest(f"Field 'jwk': {error}"))


def _public_jwk(jwk: Jwk, party: Party) -> PublicJwk:
    for name in PRIVATE_MEMBERS:
        if jwk.get(name) is not None:
            raise BadRequest(f"it holds the private member '{name}'")
    kty = _text(jwk, "kty")
    if kty not in PAIR_TYPES:
        raise BadRequest(f"Field 'kty' must be one of: {', '.join(PAIR_TYPES)}")
    key_type = PAIR_TYPES[kty]
    crv = _text(jwk, "crv") if key_type.crvs else None
    alg, kid = _optional(jwk, "alg"), jwk.get("kid")
    octets = {name: _octets(jwk, name) for name in key_type.public_members}
    return PublicJwk(
        key=party.read(key_type, crv or "", octets),
        kty=kty,
        crv=crv,
        alg=alg,
        kid=kid if isinstance(kid, str) else None,
        is_meant=_is_meant(jwk, party),
    )


def _is_meant(jwk: Jwk, party: Party) -> bool:
    """Tell what ``use`` and ``key_ops`` say (RFC 7517 §4.2, §4.3)."""
    operations = jwk.get("key_ops")
    if operations is not None and not _is_list_of_texts(operations):
        raise BadRequest("Field 'key_ops' must be an array of strings")
    is_for_it = operations is None or any(name in party.operations for name in operations)
    return _optional(jwk, "use") in {None, party.use} and is_for_it


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _optional(jwk: Jwk, name: str) -> str | None:
    return None if jwk.get(name) is None else _text(jwk, name)


def _text(jwk: Jwk, name: str) -> str:
    if jwk.get(name) is None:
        raise BadRequest(f"Field '{name}' is required")
    if not isinstance(jwk[name], str):
        raise BadRequest(f"Field '{name}' must be a string")
    return str(jwk[name])


def _octets(jwk: Jwk, name: str) -> bytes:
    return require_bytes(_text(jwk, name), name)
