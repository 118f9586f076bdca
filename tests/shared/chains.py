"""Certificates for keys of the service, signed by an authority and one above it."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from cryptography.x509.oid import NameOID

from tests.shared.api import Api


def named(common_name: str) -> x509.Name:
    """Return a name that has nothing else."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def public_key(api: Api, kid: str) -> Any:
    """Return the public half of a key of the service."""
    return load_pem_public_key(api.get(f"/keys/{kid}/public.pem").content)


def certificate(
    subject: str, public: Any, issuer: str, signer: Any, *, is_authority: bool = False
) -> x509.Certificate:
    """Return a certificate for ``public``, signed by the private key of its issuer."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )


def chain_for(public: Any) -> list[x509.Certificate]:
    """Return a chain for ``public``: its own certificate, that of the issuer, that of the root."""
    root, issuer = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    return [
        certificate("signer", public, "issuer", issuer),
        certificate("issuer", issuer.public_key(), "root", root, is_authority=True),
        certificate("root", root.public_key(), "root", root, is_authority=True),
    ]


def der(one: x509.Certificate) -> bytes:
    """Return the DER of a certificate."""
    return one.public_bytes(Encoding.DER)


def der_of_no_version(one: x509.Certificate) -> bytes:
    """Return the DER of what would be a certificate, if there were a version 6 of them."""
    version_3 = bytes.fromhex("a003020102")
    return der(one).replace(version_3, version_3[:-1] + b"\5", 1)


def x5c(chain: list[x509.Certificate]) -> list[str]:
    """Return a chain as headers and JWKs have it (RFC 7515 §4.1.6)."""
    return [base64.b64encode(der(one)).decode() for one in chain]
