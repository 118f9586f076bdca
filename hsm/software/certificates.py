"""Certificates (RFC 5280): whose key they hold, and who has signed them."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from hsm.algorithms.kinds import PublicKey

UNREADABLE_CERTIFICATE: Final = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)
"""What the library raises for what is no certificate, and for parts of one that it cannot read."""


def is_certificate_of(der: bytes, public: PublicKey) -> bool:
    """Tell whether ``der`` is a certificate that holds ``public``; what is none does not."""
    try:
        return x509.load_der_x509_certificate(der).public_key() == public
    except UNREADABLE_CERTIFICATE:
        return False


def certificates_of(pem: str) -> tuple[bytes, ...]:
    """Return the DER of each certificate in PEM; raise ``ValueError`` if there is none, or else."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
    except UNREADABLE_CERTIFICATE as error:
        raise ValueError(str(error)) from None
    return tuple(one.public_bytes(Encoding.DER) for one in found)


def is_chain(ders: Sequence[bytes]) -> bool:
    """Tell whether each is a certificate that the next one has issued and signed."""
    try:
        chain = [x509.load_der_x509_certificate(der) for der in ders]
        for issued, issuer in pairwise(chain):
            issued.verify_directly_issued_by(issuer)
    except (*UNREADABLE_CERTIFICATE, InvalidSignature):
        return False
    return True
