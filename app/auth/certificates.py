"""TLS client certificates, from the connection itself or as nginx has verified them."""

import hmac
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple, Self
from urllib.parse import unquote

from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from flask import Request

import hsm
from app.auth.schemes import Claim, Refused, Roles, refusing
from app.config import Config
from app.rights import Principal, is_name

KIND: Final = "mtls:"
SECRET_HEADER: Final = "X-Proxy-Secret"  # noqa: S105  # a name
VERIFY_HEADER: Final = "X-Client-Verify"
CERTIFICATE_HEADER: Final = "X-Client-Cert"

_UNKNOWN: Final = f"{KIND}?"
_LONGEST: Final = 500
_NameType = type[x509.UniformResourceIdentifier] | type[x509.DNSName] | type[x509.RFC822Name]
_NAMES: Final[tuple[tuple[str, _NameType], ...]] = (
    ("uri", x509.UniformResourceIdentifier),
    ("dns", x509.DNSName),
    ("email", x509.RFC822Name),
)


class Subject(NamedTuple):
    """Whom a certificate names, and until when."""

    name: str
    until: datetime


@lru_cache(maxsize=1024)
def subject_of(der: bytes) -> Subject:
    """Return the first URI, DNS or e-mail name, else the whole subject (RFC 4514).

    Raises one of ``hsm.UNREADABLE_CERTIFICATE`` for what is not a certificate or names nobody.
    """
    certificate = x509.load_der_x509_certificate(der)
    until = certificate.not_valid_after_utc
    names = _alternative_names(certificate)
    for kind, name_type in _NAMES:
        found = names.get_values_for_type(name_type) if names else []
        if found:
            return Subject(_checked(f"{kind}:{found[0]}"), until)
    if not list(certificate.subject):
        raise ValueError("the certificate names nobody")
    return Subject(_checked(f"subject:{certificate.subject.rfc4514_string()}"), until)


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName | None:
    try:
        extension = certificate.extensions.get_extension_for_oid(
            ExtensionOID.SUBJECT_ALTERNATIVE_NAME
        )
    except x509.ExtensionNotFound:
        return None
    value = extension.value
    return value if isinstance(value, x509.SubjectAlternativeName) else None


def _checked(name: str) -> str:
    if len(name) > _LONGEST or not is_name(name):
        raise ValueError("the certificate has a name that cannot be one")
    return name


class CertificateWay:
    """Proves ``mtls:`` and the subject of a verified certificate.

    ``find`` returns the certificate of a request in DER, ``None`` without one, or raises
    ``Refused``. A request that bears credentials is judged by those alone.
    """

    def __init__(self, find: Callable[[Request], bytes | None], roles: Roles) -> None:
        self._find = find
        self._roles = roles

    def claim(self, request: Request) -> Claim | None:
        """Return whose certificate the request comes with."""
        if "Authorization" in request.headers:
            return None
        try:
            der = self._find(request)
            if der is None:
                return None
            subject = subject_of(der)
        except (Refused, *hsm.UNREADABLE_CERTIFICATE) as error:
            return Claim(principal=_UNKNOWN, prove=refusing(f"certificate: {error}"))
        return Claim(principal=KIND + subject.name, prove=lambda: self._prove(subject))

    def _prove(self, subject: Subject) -> Principal:
        if subject.until <= datetime.now(UTC):  # a connection may last longer
            raise Refused("certificate: expired")
        return self._roles.principal(KIND + subject.name)


def of_connection(request: Request) -> bytes | None:
    """Return the certificate that gunicorn's own TLS has verified."""
    connection = request.environ.get("gunicorn.socket")
    if not isinstance(connection, ssl.SSLSocket):
        return None
    return connection.getpeercert(binary_form=True)


def _only_certificate(pem: str) -> bytes:
    """Return the DER of ``pem``; raise ``ValueError`` if that is not one certificate exactly."""
    der = ssl.PEM_cert_to_DER_cert(pem)
    if ssl.DER_cert_to_PEM_cert(der) != pem:  # the first of several, or a lenient base64
        raise ValueError("not one certificate in PEM")
    return der


class Proxy:
    """Recognises nginx by a shared secret, and only then believes its headers."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    @classmethod
    def of(cls, config: Config) -> Self | None:
        """Return the proxy of ``config``, if there is one; raise ``ConfigError``."""
        secret = config.read_proxy_secret()
        return cls(secret) if secret else None

    def is_it(self, request: Request) -> bool:
        """Tell whether ``request`` comes through the proxy."""
        given = request.headers.get(SECRET_HEADER, "").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(given, self._secret)

    def certificate(self, request: Request) -> bytes | None:
        """Return the certificate that nginx has verified; ``None`` if the client has none."""
        verified = request.headers.get(VERIFY_HEADER)
        if verified is None and CERTIFICATE_HEADER not in request.headers:
            return None
        if not self.is_it(request):
            raise Refused("forwarded by somebody without the secret")
        if verified == "NONE":
            return None
        if verified != "SUCCESS":
            raise Refused("not verified by the proxy")
        return _only_certificate(unquote(request.headers.get(CERTIFICATE_HEADER, "")))
