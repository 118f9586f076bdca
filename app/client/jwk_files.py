"""Keys of files as JWKs: PEM, DER and PKCS#12 are read, and JWKs as they are."""

from contextlib import suppress
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import InvalidVersion, load_pem_x509_certificate
from joserfc.jwk import ECKey, OKPKey, RSAKey

from app.client.files import is_json, json_object
from app.terminal.failure import CommandFailed
from app.terminal.key_files import Password, load_private

_TYPES: Final[tuple[tuple[Any, Any], ...]] = (
    ((rsa.RSAPrivateKey, rsa.RSAPublicKey), RSAKey),
    ((ec.EllipticCurvePrivateKey, ec.EllipticCurvePublicKey), ECKey),
    ((ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey), OKPKey),
    ((ed448.Ed448PrivateKey, ed448.Ed448PublicKey), OKPKey),
    ((x25519.X25519PrivateKey, x25519.X25519PublicKey), OKPKey),
)
_CERTIFICATE: Final = b"-----BEGIN CERTIFICATE-----"
_PRIVATE: Final = frozenset({"d", "k", "priv"})  # one is in each private or secret key


def private_jwk(octets: bytes, password: Password, *, name: str) -> dict[str, Any]:
    """Return the private key of the file ``name``, or the JSON object that it holds.

    Raises ``CommandFailed``.
    """
    if is_json(octets):
        return json_object(octets, name=name)
    return _jwk(load_private(octets, password, name=name), name=name, private=True)


def public_jwk(octets: bytes, *, name: str) -> dict[str, Any]:
    """Return the public key of the file ``name``: a JWK, or one or a certificate in PEM.

    Raises ``CommandFailed``, also for a JWK that is private: it is for nobody else.
    """
    if is_json(octets):
        jwk = json_object(octets, name=name)
        if not _PRIVATE.isdisjoint(jwk):
            raise CommandFailed(f"{name} holds a private key, which is not sent")
        return jwk
    return _jwk(_loaded(octets, name=name), name=name, private=False)


def _loaded(octets: bytes, *, name: str) -> Any:
    try:
        if _CERTIFICATE in octets:
            return load_pem_x509_certificate(octets).public_key()
        return load_pem_public_key(octets)
    except (ValueError, UnsupportedAlgorithm, InvalidVersion):
        raise CommandFailed(f"{name} is no public key, neither in PEM nor as a JWK") from None


def _jwk(key: Any, *, name: str, private: bool) -> dict[str, Any]:
    for classes, type_ in _TYPES:
        if isinstance(key, classes):
            with suppress(KeyError):  # it is on a curve that JOSE has no name for
                jwk: dict[str, Any] = type_.import_key(key).as_dict(private=private)
                return jwk
    raise CommandFailed(f"{name} is of no type that is read here; wrap it or send it as a JWK")
