"""Bodies of the keys resource (wire contract §3): what may be created, and what is an import."""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from marshmallow import fields, post_load

import hsm
from app.errors import BadRequest
from app.jwk import key_material
from app.schemas.fields import (
    SHOWN,
    Base64Url,
    RequestSchema,
    ResponseSchema,
    Text,
    WholeNumber,
    refusal,
)
from hsm import KeySpec

RSA_BITS: Final = (2048, 3072, 4096)

KTYS: Final = ("oct", "RSA", "EC", "OKP", "AKP")
ALG_REQUIRED: Final = ("oct", "AKP")
CRV_OPTIONAL: Final = ("OKP",)
PRIVATE_MEMBERS: Final = ("k", "d", "priv")
_SECRET_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {name: 8 * row.key_bytes for name, row in hsm.CONTENT_ENCRYPTIONS.items()}
    | {name: 8 * row.key_bytes for name, row in hsm.KEY_WRAPPINGS.items()}
    | {name: 8 * row.mac_bytes for name, row in hsm.MACS.items()}
)

Body = Mapping[str, Any]
Material = bytes | hsm.PrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """A key to generate or, with ``material``, to import: checked, and never shown."""

    spec: KeySpec
    material: Material | None = None

    def __repr__(self) -> str:
        return f"<KeyRequest {self.spec}>"


def _material() -> Base64Url:
    return Base64Url(load_default=None, allow_none=True)


class CreateKeyRequest(RequestSchema):
    """POST /keys: a JWK (RFC 7517), with key material or without."""

    kty = Text(required=True)
    alg = Text(load_default=None, allow_none=True)
    crv = Text(load_default=None, allow_none=True)
    bits = WholeNumber(load_default=None, allow_none=True)
    k = _material()
    n = _material()
    e = _material()
    d = _material()
    p = _material()
    q = _material()
    dp = _material()
    dq = _material()
    qi = _material()
    x = _material()
    y = _material()
    pub = _material()
    priv = _material()

    @post_load
    def make(self, body: dict[str, Any], **_kwargs: Any) -> KeyRequest:
        """Return the request; raise ``BadRequest`` for what does not go together."""
        spec = _spec(body)
        members = [name for name, field in self.fields.items() if isinstance(field, Base64Url)]
        given = dict.fromkeys(name for name in members if body[name] is not None).keys()
        request = _import(spec, body) if _is_import(given) else _generation(spec, body)
        _require_offered(spec)
        return request


class KeyResponse(ResponseSchema):
    """A created key; ``kid_public`` is null for imported pairs and absent for ``oct``."""

    kid = fields.UUID(required=True)
    kid_public = fields.UUID(allow_none=True)
    kty = fields.String(required=True)
    alg = fields.String()
    crv = fields.String()
    key_ops = fields.List(fields.String(), required=True)


def _spec(body: Body) -> KeySpec:
    kty, alg = body["kty"], body["alg"]
    if kty not in KTYS:
        raise BadRequest(f"Field 'kty' must be one of: {', '.join(KTYS)}")
    if alg is None and kty in ALG_REQUIRED:
        raise BadRequest(f"Field 'alg' is required for key type '{kty}'")
    crvs = list(hsm.algorithms_by_crv(kty, alg))
    if not crvs:
        shown = str(alg)[:SHOWN]
        raise BadRequest(f"Algorithm '{shown}' is not compatible with key type '{kty}'.")
    return KeySpec(kty=kty, alg=alg, crv=_crv(kty, body["crv"], crvs))


def _crv(kty: str, crv: str | None, crvs: list[str | None]) -> str | None:
    if crvs == [None]:
        return None
    crv = crvs[0] if crv is None and kty in CRV_OPTIONAL else crv
    if crv is None:
        raise BadRequest(f"Field 'crv' is required for key type '{kty}'")
    if crv not in crvs:
        raise BadRequest(
            f"Field 'crv' must be one of these for the key: {', '.join(map(str, crvs))}"
        )
    return crv


def _is_import(given: Set[str]) -> bool:
    if given and given.isdisjoint(PRIVATE_MEMBERS):
        raise BadRequest(
            f"Field '{next(iter(given))}' is of a key to import, and its 'd' or 'k' is missing; "
            "to generate a key leave it out"
        )
    return bool(given)


def _generation(spec: KeySpec, body: Body) -> KeyRequest:
    if spec.kty == "RSA":
        bits = RSA_BITS[0] if body["bits"] is None else body["bits"]
        if bits not in RSA_BITS:
            raise BadRequest(f"Field 'bits' must be one of: {', '.join(map(str, RSA_BITS))}")
        return KeyRequest(spec=replace(spec, bits=bits))
    return KeyRequest(spec=replace(spec, bits=_SECRET_BITS.get(spec.alg or "")))


def _import(spec: KeySpec, body: Body) -> KeyRequest:
    material = _IMPORTS[spec.kind.name](spec, body)
    return KeyRequest(spec=replace(spec, bits=_bits(material)), material=material)


def _bits(material: Material) -> int | None:
    if isinstance(material, bytes):
        return 8 * len(material)
    return material.key_size if isinstance(material, RSAPrivateKey) else None


def _required(body: Body, name: str) -> bytes:
    if body[name] is None:
        raise BadRequest(f"Field '{name}' is required to import a key of type '{body['kty']}'")
    value: bytes = body[name]
    return value


def _import_secret(spec: KeySpec, body: Body) -> Material:
    return key_material.secret(str(spec.alg), _required(body, "k"))


def _import_rsa(_: KeySpec, body: Body) -> Material:
    return key_material.rsa_private_key(body)


def _import_ec(spec: KeySpec, body: Body) -> Material:
    return key_material.ec_private_key(str(spec.crv), _required(body, "d"), body["x"], body["y"])


def _import_edwards(_: KeySpec, body: Body) -> Material:
    return key_material.ed25519_private_key(_required(body, "d"), body["x"])


def _import_montgomery(_: KeySpec, body: Body) -> Material:
    return key_material.x25519_private_key(_required(body, "d"), body["x"])


def _refuse_import(spec: KeySpec, _: Body) -> Material:
    raise BadRequest(f"Field 'alg': keys of algorithm '{spec.alg}' cannot be imported")


_IMPORTS: Final[Mapping[str, Callable[[KeySpec, Body], Material]]] = MappingProxyType(
    {
        "AES": _import_secret,
        "HMAC": _import_secret,
        "RSA": _import_rsa,
        "EC": _import_ec,
        "Ed25519": _import_edwards,
        "X25519": _import_montgomery,
        "ML-DSA": _refuse_import,
    }
)


def _require_offered(spec: KeySpec) -> None:
    refusals = {row.name: refusal(row.name, spec.crv) for row in spec.algorithms}
    if None not in refusals.values():
        name, reason = next(iter(refusals.items()))
        raise hsm.UnsupportedAlgorithm.not_offered(name, str(reason))
