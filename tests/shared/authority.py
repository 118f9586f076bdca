"""A certificate authority, and certificates that are good, late, strange or none of its."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Names = list[x509.GeneralName]


def uri(value: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(value)


def dns(value: str) -> x509.GeneralName:
    return x509.DNSName(value)


def email(value: str) -> x509.GeneralName:
    return x509.RFC822Name(value)


def subject(common_name: str | None, organization: str | None = None) -> x509.Name:
    parts = [(NameOID.ORGANIZATION_NAME, organization), (NameOID.COMMON_NAME, common_name)]
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts if value])


class Authority:
    """Signs certificates and keeps them in ``directory``."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._name = subject(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .add_extension(_usage(is_authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.path = directory / f"{name}.pem"
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def issue(  # noqa: PLR0913  # what a certificate says, all by name
        self,
        file: str,
        *,
        common_name: str | None = None,
        organization: str | None = None,
        names: Names | None = None,
        ended: timedelta | None = None,
        begins: timedelta = timedelta(days=-10),
    ) -> tuple[str, str]:
        """Return the paths of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject(common_name, organization))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + begins)
            .not_valid_after(now + (-ended if ended else timedelta(days=1)))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(_usage(is_authority=False), critical=True)
        )
        if names:
            alternative = x509.SubjectAlternativeName(names)
            builder = builder.add_extension(alternative, critical=not common_name)
        certificate = builder.sign(self._key, hashes.SHA256())
        paths = self._directory / f"{file}.crt", self._directory / f"{file}.key"
        paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return str(paths[0]), str(paths[1])


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


class Certificates:
    """A server and its clients."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory, "authority")
        stranger = Authority(directory / "stranger", "authority")
        self.server = self.authority.issue(
            "server", common_name="server", names=[dns("localhost"), *_loopback()]
        )
        issue = self.authority.issue
        self.alice = issue("alice", common_name="alice", names=[dns("alice.example")])
        self.bob = issue("bob", common_name="bob", organization="Example")
        self.expired = issue(
            "expired", names=[dns("alice.example")], common_name="x", ended=timedelta(days=1)
        )
        self.early = issue(
            "early", names=[dns("alice.example")], common_name="x", begins=timedelta(hours=1)
        )
        self.rogue = stranger.issue("rogue", common_name="alice", names=[dns("alice.example")])

    @property
    def settings(self) -> dict[str, str]:
        """What gunicorn needs to demand them itself."""
        return {
            "JOSE_HSM_AUTH": "mtls",
            "JOSE_HSM_TLS_CERTIFICATE": self.server[0],
            "JOSE_HSM_TLS_KEY": self.server[1],
            "JOSE_HSM_TLS_CLIENT_CA": str(self.authority.path),
            "JOSE_HSM_AUTH_FAILURES": "100000",
        }


def _loopback() -> Names:
    return [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
