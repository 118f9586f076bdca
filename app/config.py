"""Everything the service needs to know about where it runs, read once from the environment."""

# ruff: noqa: RUF009  # setting is dataclasses.field with a parser and a meaning

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, Self

import hsm
from app.duration import read_duration
from app.settings import (
    PREFIX,
    ConfigError,
    absolute,
    binds_loopback,
    choice,
    collector,
    few,
    flag,
    is_address,
    not_both,
    parse_token_uri,
    principals,
    read,
    require_safe,
    seconds,
    setting,
    several,
    text,
    whole,
)

MAX_BODY_BYTES: Final = 2 * 1024 * 1024  # of a request
ASYMMETRIC: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
_SHORTEST_SECRET: Final = 16


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings; each is ``JOSE_HSM_`` and its name in capitals."""

    pkcs11_module: Path = setting(absolute, "path of the PKCS#11 library")
    pkcs11_parameters: str | None = setting(
        text, "what the library gets as `pReserved` of `C_Initialize`: NSS wants it", default=None
    )
    token_label: str | None = setting(text, "label of the token", default=None)
    token_serial: str | None = setting(text, "serial number of the token", default=None)
    token_uri: str | None = setting(
        text, "token as an RFC 7512 URI (`token` and `serial`), instead of the two", default=None
    )
    pin_file: Path | None = setting(
        absolute, "file with the user PIN, read at each login", default=None
    )
    pin: str | None = setting(
        text, "the user PIN itself; for development only", default=None, is_secret=True
    )
    state_dir: Path = setting(
        absolute, "directory of locks and of the default registry", default=Path("var")
    )
    database_url: str | None = setting(
        text,
        "SQLAlchemy URL of the registry, in PostgreSQL or SQLite; by default SQLite in `STATE_DIR`",
        default=None,
        is_secret=True,
    )
    bind: str = setting(text, "address and port, or `unix:PATH`", default="127.0.0.1:8000")
    header_seconds: float = setting(
        seconds,
        "wait for the header section of a request that has begun, and for a TLS handshake",
        default=10.0,
    )
    request_seconds: float = setting(
        seconds,
        "the same for a whole request, then 408; and for a client that takes nothing of its answer",
        default=30.0,
    )
    sessions: int = setting(
        few, "PKCS#11 sessions of each worker, lent to one operation at a time", default=4
    )
    session_wait_seconds: float = setting(
        seconds, "wait for a free session in seconds, then 503", default=2.0
    )
    generations: int = setting(
        few,
        "RSA pairs that each worker generates, or checks to import, at a time, in a lane of their "
        "own; seven more may wait, for 15 s, others get 503",
        default=1,
    )
    call_seconds: float = setting(
        seconds,
        "an operation that has not come back from the token after so many seconds ends its "
        "worker, which is replaced",
        default=10.0,
    )
    generation_seconds: float = setting(
        seconds, "the same for generating an RSA pair, and for opening the token", default=120.0
    )
    check_results: bool = setting(
        flag,
        "1 decrypts every new ciphertext and computes every MAC twice before it is given away; "
        "signatures are always verified",
        default=True,
    )
    fips: bool = setting(
        flag, "1 refuses OKP, EdDSA, X25519, ES256K, ML-DSA and RSA1_5", default=False
    )
    rsa1_5: bool = setting(
        flag, "1 offers RSA1_5; read the warning in the README first", default=False
    )
    import_: Literal["any", "wrapped"] = setting(
        choice("any", "wrapped"),
        "`wrapped` imports no key that the service would see: only those that were wrapped for the "
        "token (`POST /wrapping-keys`)",
        default="any",
    )
    cek: Literal["process", "token"] = setting(
        choice("process", "token"),
        "`token` refuses algorithms whose CEK would pass through the process",
        default="process",
    )
    auth: tuple[str, ...] = setting(
        several("token", "jwt", "mtls"),
        "`token`, `jwt`, `mtls`, or several with commas; without any only loopback is served",
        default=(),
    )
    auth_failures: int = setting(
        whole,
        "failed attempts a minute that a worker answers with 401 per address, then 429",
        default=10,
    )
    everybody_creates: bool = setting(
        flag, "0 lets only those with role `creator` or `admin` make keys", default=True
    )
    admins: tuple[str, ...] = setting(
        principals, "principals with role `admin`, with a vertical bar between them", default=()
    )
    auditors: tuple[str, ...] = setting(
        principals, "principals with role `auditor`, likewise", default=()
    )
    jwt_issuer: str | None = setting(text, "`iss` that JWTs must have", default=None)
    jwt_audience: str | None = setting(text, "`aud` that JWTs must have", default=None)
    jwt_jwks: str | None = setting(
        text, "JWK set of the issuer: a file or an https URL", default=None
    )
    jwt_jwks_seconds: float = setting(
        seconds,
        "how long the last good JWK set is believed while it cannot be read anew, in seconds; "
        "then 503",
        default=86400.0,
    )
    jwt_algorithms: tuple[str, ...] = setting(
        several(*ASYMMETRIC),
        "`alg` that JWTs may have",
        default=("RS256", "PS256", "ES256", "EdDSA", "Ed25519"),
    )
    jwt_typ: str | None = setting(
        text, "`typ` that JWTs must have, as `at+jwt`; by default any", default=None
    )
    jwt_principal_claim: str = setting(
        text, "claim that names the principal; dots lead into nested claims", default="sub"
    )
    jwt_roles_claim: str = setting(
        text, "claim that lists roles, likewise: `realm_access.roles`", default="roles"
    )
    jwt_lifetime_seconds: float = setting(
        seconds, "longest lifetime of a JWT in seconds", default=86400.0
    )
    tls_certificate: Path | None = setting(
        absolute, "certificate chain, to serve TLS without a proxy", default=None
    )
    tls_key: Path | None = setting(absolute, "its private key", default=None)
    tls_client_ca: Path | None = setting(
        absolute, "certificates that client certificates must lead to", default=None
    )
    proxy_secret_file: Path | None = setting(
        absolute,
        "file with the secret by which nginx may say who the client is (`deploy/nginx`)",
        default=None,
    )
    keys_per_owner: int | None = setting(
        whole, "most keys that one principal may own, then 422; by default any number", default=None
    )
    destroy_after: timedelta | None = setting(
        read_duration,
        "how long a deleted key can be had back, as `P30D` (ISO 8601), where the key has no "
        "`destroy_after` of its own; by default it is destroyed at once",
        default=None,
    )
    storage: str = setting(
        choice(*hsm.Storage),
        "where keys are kept that say nothing of it: on the `token`, or `wrapped` in the registry, "
        "encrypted by the token (`jose-hsm kek create`)",
        default="token",
    )
    unwrapped_keys: int = setting(
        whole,
        "most keys kept in the registry that each worker has unwrapped on the token at a time",
        default=1000,
    )
    jwks_tagging: bool = setting(
        flag,
        "0 generates pairs that sign without the tag `jwks`, which publishes them",
        default=True,
    )
    jwks_keys: int = setting(
        whole,
        "most keys in `/.well-known/jwks.json`; then new pairs are made unpublished",
        default=50,  # of RSA-4096 keys less than 50 KiB, the most that Nimbus reads
    )
    jwks_max_age: float = setting(
        seconds,
        "how long the JWKS may be kept by those who fetch it, in seconds; the next version of a "
        "key set is published for as long, at least, before it signs",
        default=60.0,
    )
    log_level: str = setting(
        choice("debug", "info", "warning", "error"),
        "`debug`, `info` (a line for each request), `warning` or `error`",
        default="info",
    )
    otlp_endpoint: str | None = setting(
        collector,
        "URL of a collector, as `http://127.0.0.1:4318`, that gets [spans](#traces) of requests",
        default=None,
    )
    audit_log: str | None = setting(
        text,
        "path of the audit log, by default `audit.log` in `STATE_DIR`; `off` for none",
        default=None,
    )
    pages: bool = setting(
        flag, "0 serves neither `/docs` nor `/status`, the pages for people", default=True
    )
    admin_page: bool = setting(
        flag, "1 serves [`/admin`](admin.md) too, where people manage keys", default=False
    )
    server_timing: bool = setting(
        flag, "1 answers with `Server-Timing`: wait for a session, token, total", default=False
    )

    def __post_init__(self) -> None:
        """Refuse settings that do not go together."""
        named = [self.token_label or self.token_serial, self.token_uri]
        if sum(map(bool, named)) != 1:
            raise ConfigError(
                f"set {PREFIX}TOKEN_LABEL or {PREFIX}TOKEN_SERIAL, or {PREFIX}TOKEN_URI "
                f"instead of them{not_both(*named)}"
            )
        if (self.pin_file is None) == (self.pin is None):
            raise ConfigError(
                f"set {PREFIX}PIN_FILE, or for development only {PREFIX}PIN"
                f"{not_both(self.pin_file, self.pin)}"
            )
        if not is_address(self.bind):
            raise ConfigError(f"{PREFIX}BIND must be like 127.0.0.1:8000 or unix:/path")
        if not self.auth and not binds_loopback(self.bind):
            raise ConfigError(
                f"{PREFIX}BIND must be a loopback address: without authentication everybody "
                f"who can connect can use every key. To serve others set {PREFIX}AUTH"
            )
        if self.admin_page and not self.pages:
            raise ConfigError(f"set {PREFIX}PAGES=1, too: {PREFIX}ADMIN_PAGE needs it")
        parse_token_uri(self.token_uri)
        self._require_ways()

    def _require_ways(self) -> None:
        """Refuse ways to authenticate that lack what they need."""
        if "jwt" in self.auth:
            for name in ("jwt_issuer", "jwt_audience", "jwt_jwks"):
                if getattr(self, name) is None:
                    raise ConfigError(f"set {PREFIX}{name.upper()}: {PREFIX}AUTH has jwt")
            require_safe(str(self.jwt_jwks))
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError(f"set both {PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY, or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigError(f"set {PREFIX}TLS_CERTIFICATE, too: {PREFIX}TLS_CLIENT_CA needs it")
        sources = [self.tls_client_ca, self.proxy_secret_file]
        if "mtls" in self.auth and sum(map(bool, sources)) != 1:
            raise ConfigError(
                f"set {PREFIX}TLS_CLIENT_CA, or behind nginx {PREFIX}PROXY_SECRET_FILE"
                f"{not_both(*sources)}: {PREFIX}AUTH has mtls"
            )

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read ``JOSE_HSM_*``, an empty one as not set; raise ``ConfigError`` with what to set."""
        return cls(**read(fields(cls), env))

    @property
    def registry_url(self) -> str:
        """SQLAlchemy URL of the registry."""
        return self.database_url or f"sqlite:///{self.state_dir / 'registry.db'}"

    @property
    def audit_path(self) -> Path | None:
        """Where the audit log is; ``None`` if there is to be none."""
        if self.audit_log == "off":
            return None
        return Path(self.audit_log).absolute() if self.audit_log else self.state_dir / "audit.log"

    def read_pin(self) -> str:
        """Return the user PIN; raise ``OSError`` or ``UnicodeDecodeError`` if it cannot be read."""
        if self.pin_file is None:
            return self.pin or ""
        return self.pin_file.read_text("utf-8").rstrip("\r\n")

    def read_proxy_secret(self) -> str | None:
        """Return the secret that nginx sends along, if there is one; raise ``ConfigError``."""
        if self.proxy_secret_file is None:
            return None
        try:
            secret = self.proxy_secret_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{PREFIX}PROXY_SECRET_FILE cannot be read: {error}") from None
        if len(secret) < _SHORTEST_SECRET:
            raise ConfigError(
                f"{PREFIX}PROXY_SECRET_FILE must hold {_SHORTEST_SECRET} characters or more"
            )
        return secret

    @property
    def hsm_settings(self) -> hsm.Settings:
        """What ``hsm`` needs of it."""
        token = parse_token_uri(self.token_uri)
        return hsm.Settings(
            module=self.pkcs11_module,
            parameters=self.pkcs11_parameters,
            token_label=self.token_label or token.get("token"),
            token_serial=self.token_serial or token.get("serial"),
            read_pin=self.read_pin,
            state_dir=self.state_dir,
            sessions=self.sessions,
            session_wait_seconds=self.session_wait_seconds,
            generations=self.generations,
            call_seconds=self.call_seconds,
            generation_seconds=self.generation_seconds,
            results_checked=self.check_results,
            plaintext_bytes=MAX_BODY_BYTES // 4 * 3,  # in base64url
            fips=self.fips,
            process_allowed=self.cek == "process",
            unwrapped_keys=self.unwrapped_keys,
            opted_in=frozenset({"RSA1_5"} if self.rsa1_5 else ()),
        )
