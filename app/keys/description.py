"""What callers are told of keys."""

import hashlib
from base64 import b64decode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import hsm
from app.duration import write_duration
from app.jose import encoding
from app.registry import Key, Remarks

_SIGN_VERIFY: Final = ["sign", "verify"]
_ENCRYPT_DECRYPT: Final = ["encrypt", "decrypt"]
_CURVE_BITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        curve.crv: curve.weierstrass.key_size if curve.weierstrass else 8 * curve.coordinate_bytes
        for curve in hsm.CURVES.values()
    }
)


def describe(key: Key) -> dict[str, Any]:
    """Return what a caller is told of a new key (wire contract §1)."""
    members = {
        "kid": str(key.kid),
        "kid_public": str(key.kid_public) if key.kid_public else None,
        "kty": key.spec.kty,
        "alg": key.spec.alg,
        "crv": key.spec.crv,
        "key_ops": _key_ops(key.spec),
    }
    absent = {name for name in ("alg", "crv") if members[name] is None}
    if not key.spec.kind.is_pair:
        absent.add("kid_public")
    return {name: value for name, value in members.items() if name not in absent}


def describe_one(keys: Sequence[Key], are_published: Sequence[bool]) -> dict[str, Any]:
    """Return what its creator is told of the only one of new ``keys``."""
    return describe_new(keys[0], are_published[0])


def describe_all(keys: Sequence[Key], are_published: Sequence[bool]) -> dict[str, Any]:
    """Return what their creator is told of several new keys."""
    return {"keys": list(map(describe_new, keys, are_published))}


def describe_new(key: Key, is_published: bool) -> dict[str, Any]:
    """Return what its creator is told of a new key; ``published`` of those that could be."""
    bits = {"bits": key.spec.bits} if key.spec.kind.is_pair and key.spec.bits else {}
    published = {"published": is_published} if key.kid_public and signs(key.spec) else {}
    alias = {"alias": key.alias} if key.alias else {}
    return describe(key) | bits | published | alias | _asked_for(key)


def _asked_for(key: Key) -> dict[str, Any]:
    """Return what keys have only if it was asked for when they were made."""
    digest = {"digest": True} if key.spec.signs_digests else {}
    after = {"destroy_after": write_duration(key.destroy_after)} if key.destroy_after else {}
    storage = {} if key.storage is hsm.Storage.TOKEN else {"storage": key.storage}
    return digest | after | storage


@lru_cache
def signs(spec: hsm.KeySpec) -> bool:
    """Tell whether such keys make signatures that a public key verifies."""
    return any(row.name in hsm.SIGNATURES for row in spec.algorithms)


def _key_ops(spec: hsm.KeySpec) -> list[str]:
    """Return what such keys are said to be for (wire contract §3)."""
    is_mac = spec.alg in hsm.MACS
    return _SIGN_VERIFY if is_mac or signs(spec) else _ENCRYPT_DECRYPT


def describe_fully(key: Key, remarks: Remarks) -> dict[str, Any]:
    """Return what those are told who may read a key."""
    members = {
        "size": key.spec.bits or _CURVE_BITS.get(key.spec.crv or ""),
        "state": key.state,
        "name": key.name,
        "alias": key.alias,
        "owner": key.owner,
        "tags": list(remarks.tags),
        "created": key.created_at,
        "activated": key.activated_at,
        "deactivated": key.deactivated_at,
        "expires": key.expires_at,
        "origin": key.origin,
        "residency": key.residency,
        "storage": key.storage,
        "last_used": remarks.used,
    }
    jwk = {} if key.public_jwk is None else {"jwk": public_jwk(key)}
    destroys = {} if key.destroy_at is None else {"destroys": key.destroy_at}
    return describe(key) | members | jwk | _asked_for(key) | destroys


def public_jwk(key: Key) -> dict[str, Any]:
    """Return the public half as a JWK (RFC 7517 §4), under the name that verifies with it."""
    use = "sig" if signs(key.spec) else "enc"
    named = {"kid": key.public_name, "use": use}
    return {**(key.public_jwk or {}), **_alg(key.spec), **named, **_certificates(key)}


def thumbprint(certificate: str) -> str:
    """Return ``x5t#S256`` of a certificate in base64 (RFC 7515 §4.1.8)."""
    return encoding.encode(hashlib.sha256(b64decode(certificate)).digest())


def _certificates(key: Key) -> dict[str, Any]:
    """Return ``x5c`` and ``x5t#S256`` of a key that has a certificate (RFC 7517 §4.7, §4.9)."""
    if not key.certificates:
        return {}
    return {"x5c": list(key.certificates), "x5t#S256": thumbprint(key.certificates[0])}


def _alg(spec: hsm.KeySpec) -> dict[str, str]:
    """Return the member ``alg`` of a JWK, where the key performs one algorithm only."""
    if len(spec.algorithms) != 1:
        return {}
    [row] = spec.algorithms
    return {"alg": row.jwk_alg or row.name}
