"""Certificates (RFC 5280): whose key they hold."""

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from hsm.algorithms.kinds import PublicKey


def is_certificate_of(der: bytes, public: PublicKey) -> bool:
    """Tell whether ``der`` is a certificate that holds ``public``; what is none does not."""
    try:
        return x509.load_der_x509_certificate(der).public_key() == public
    except (ValueError, UnsupportedAlgorithm):
        return False
