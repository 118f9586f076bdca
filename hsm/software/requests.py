"""Requests for certificates (PKCS#10, RFC 2986), signed wherever the key is."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from hsm.algorithms.families import SignatureAlgorithm
from hsm.algorithms.kinds import EC, EDWARDS, RSA, PublicKey
from hsm.algorithms.tables import SIGNATURES

Sign = Callable[[bytes], bytes]
"""Returns the signature as JWS has it."""

SUBJECT_NAMES: Final[Mapping[str, x509.ObjectIdentifier]] = MappingProxyType(
    {
        "CN": NameOID.COMMON_NAME,
        "O": NameOID.ORGANIZATION_NAME,
        "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
        "C": NameOID.COUNTRY_NAME,
        "ST": NameOID.STATE_OR_PROVINCE_NAME,
        "L": NameOID.LOCALITY_NAME,
        "serialNumber": NameOID.SERIAL_NUMBER,
    }
)
"""Parts of a subject, as RFC 4514 and X.520 call them."""


class _Elsewhere:
    """A private key that is not here, as far as the library asks for one."""

    def __init__(self, public: PublicKey, sign: Sign) -> None:
        self._public = public
        self._sign = sign

    def public_key(self) -> PublicKey:
        """Return the public half."""
        return self._public

    def sign(self, data: bytes, *_parameters: Any) -> bytes:
        """Return the signature as certificates have it."""
        return self._sign(data)


@rsa.RSAPrivateKey.register
class _Rsa(_Elsewhere):
    pass


@ed25519.Ed25519PrivateKey.register
class _Ed25519(_Elsewhere):
    pass


@ed448.Ed448PrivateKey.register
class _Ed448(_Elsewhere):
    pass


@ec.EllipticCurvePrivateKey.register
class _Ec(_Elsewhere):
    def sign(self, data: bytes, *_parameters: Any) -> bytes:
        """See ``_Elsewhere``: R and S are in DER there (RFC 3279 §2.2.3)."""
        signature = self._sign(data)
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        return utils.encode_dss_signature(r, s)


_KEYS: Final[Mapping[type[Any], type[_Elsewhere]]] = MappingProxyType(
    {
        rsa.RSAPublicKey: _Rsa,
        ec.EllipticCurvePublicKey: _Ec,
        ed25519.Ed25519PublicKey: _Ed25519,
        ed448.Ed448PublicKey: _Ed448,
    }
)
REQUESTING: Final = frozenset(
    name for name, row in SIGNATURES.items() if row.kind in (RSA, EC, EDWARDS)
)
"""Algorithms that certificates are asked for with."""


def certificate_request(
    public: PublicKey, alg: str, subject: Mapping[str, str], dns: Sequence[str], sign: Sign
) -> str:
    """Return the PEM of a request for ``public``, which ``sign`` proves to be the caller's.

    Raises ``ValueError`` for a subject or a name that no certificate can have.
    """
    row = SIGNATURES[alg]
    parts = [x509.NameAttribute(SUBJECT_NAMES[name], value) for name, value in subject.items()]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(parts))
    if dns:
        names = x509.SubjectAlternativeName([x509.DNSName(name) for name in dns])
        builder = builder.add_extension(names, critical=not parts)
    kind = next(kind for kind in _KEYS if isinstance(public, kind))
    key: Any = _KEYS[kind](public, sign)
    hash_algorithm: Any = row.hash
    request = builder.sign(key, hash_algorithm, **_padding(row))
    return request.public_bytes(Encoding.PEM).decode("ascii")


def _padding(row: SignatureAlgorithm) -> dict[str, Any]:
    if row.param is None or row.hash is None:
        return {}
    return {"rsa_padding": padding.PSS(padding.MGF1(row.hash), row.hash.digest_size)}
