"""JOSE in bytes: base64url, headers, what is signed, what is authenticated, public JWKs."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Final

import pybase64
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.jose import strict_json
from hsm import WEIERSTRASS_CURVES, PublicKey

_URL: Final = b"-_"
_PADDING: Final = ("", "===", "==", "=")


def encode(value: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return pybase64.b64encode_as_string(value, altchars=_URL).rstrip("=")


def decode(text: str) -> bytes:
    """Return the bytes of base64url ``text``; raise ``ValueError`` unless it is the canonical form.

    The library ignores trailing bits, and warns of ``+`` and ``/``. Encoding again does not.
    """
    if "+" in text or "/" in text:
        raise ValueError("not the alphabet of base64url")
    value = pybase64.b64decode(text + _PADDING[len(text) % 4], altchars=_URL, validate=True)
    if encode(value) != text:
        raise ValueError("not canonical base64url")
    return value


def protected_header(**members: Any) -> str:
    """Return a protected header with ``members`` in that order."""
    return encode(strict_json.dumps(members))


@lru_cache(maxsize=1024)
def plain_header(**names: str) -> str:
    """Return the protected header of short ``names`` alone; many messages have the same."""
    return protected_header(**names)


def signing_input(protected: str, data: str) -> bytes:
    """Return the JWS Signing Input of two encoded strings (RFC 7515 §5.1 step 5)."""
    return f"{protected}.{data}".encode("ascii")


def compact(*parts: str | bytes) -> str:
    """Return the Compact Serialization (RFC 7515 §7.1, RFC 7516 §7.1); bytes are encoded."""
    return ".".join(part if isinstance(part, str) else encode(part) for part in parts)


def additional_data(protected: str, aad: str | None) -> bytes:
    """Return the AAD of encoded strings, as received (RFC 7516 §5.1 step 14)."""
    return (protected if aad is None else f"{protected}.{aad}").encode("ascii")


def _unsigned(value: int) -> str:
    """Return Base64urlUInt (RFC 7518 §2)."""
    return encode(value.to_bytes(max(1, (value.bit_length() + 7) // 8)))


def _rsa_jwk(key: rsa.RSAPublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    return {"kty": "RSA", "n": _unsigned(numbers.n), "e": _unsigned(numbers.e)}


_CRV: Final = MappingProxyType({curve.name: crv for crv, curve in WEIERSTRASS_CURVES.items()})


def _ec_jwk(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    coordinate_bytes = (key.curve.key_size + 7) // 8
    return {
        "kty": "EC",
        "crv": _CRV[key.curve.name],
        "x": encode(numbers.x.to_bytes(coordinate_bytes)),
        "y": encode(numbers.y.to_bytes(coordinate_bytes)),
    }


def _okp_jwk(crv: str, key: ed25519.Ed25519PublicKey | x25519.X25519PublicKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": crv, "x": encode(key.public_bytes_raw())}


def _akp_jwk(key: mldsa.MLDSA44PublicKey) -> dict[str, str]:
    return {"kty": "AKP", "alg": "ML-DSA-44", "pub": encode(key.public_bytes_raw())}


_JWKS: Final[Mapping[type[Any], Callable[[Any], dict[str, str]]]] = MappingProxyType(
    {
        rsa.RSAPublicKey: _rsa_jwk,
        ec.EllipticCurvePublicKey: _ec_jwk,
        ed25519.Ed25519PublicKey: partial(_okp_jwk, "Ed25519"),
        x25519.X25519PublicKey: partial(_okp_jwk, "X25519"),
        mldsa.MLDSA44PublicKey: _akp_jwk,
    }
)


def public_jwk(key: PublicKey) -> dict[str, str]:
    """Return the public members of a JWK (RFC 7518 §6, RFC 8037 §2, RFC 9964)."""
    return next(convert(key) for kind, convert in _JWKS.items() if isinstance(key, kind))


def public_pem(jwk: Mapping[str, str]) -> bytes:
    """Return SubjectPublicKeyInfo in PEM of the public members of a JWK."""
    key = _READERS[jwk["kty"]](jwk)
    pem: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _number(text: str) -> int:
    return int.from_bytes(decode(text))


def _rsa_key(jwk: Mapping[str, str]) -> PublicKey:
    return rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()


def _ec_key(jwk: Mapping[str, str]) -> PublicKey:
    curve = WEIERSTRASS_CURVES[jwk["crv"]]
    return ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), curve).public_key()


_OKPS: Final[Mapping[str, Callable[[bytes], PublicKey]]] = MappingProxyType(
    {
        "Ed25519": ed25519.Ed25519PublicKey.from_public_bytes,
        "X25519": x25519.X25519PublicKey.from_public_bytes,
    }
)


def _okp_key(jwk: Mapping[str, str]) -> PublicKey:
    return _OKPS[jwk["crv"]](decode(jwk["x"]))


def _akp_key(jwk: Mapping[str, str]) -> PublicKey:
    return mldsa.MLDSA44PublicKey.from_public_bytes(decode(jwk["pub"]))


_READERS: Final[Mapping[str, Callable[[Mapping[str, str]], PublicKey]]] = MappingProxyType(
    {"RSA": _rsa_key, "EC": _ec_key, "OKP": _okp_key, "AKP": _akp_key}
)
