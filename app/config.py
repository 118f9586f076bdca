"""Everything the service needs to know about where it runs, read once from the environment."""

# ruff: noqa: RUF009  # _setting is dataclasses.field with a parser and a meaning

import difflib
import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, Self
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import hsm

PREFIX: Final = "JOSE_HSM_"
MAX_BODY_BYTES: Final = 2 * 1024 * 1024  # of a request
ASYMMETRIC: Final = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
_SHORTEST_SECRET: Final = 16


class ConfigError(ValueError):
    """A setting is missing or wrong; the text says which, and what to set."""


def _text(value: str) -> str:
    return value


def _flag(value: str) -> bool:
    try:
        return {"0": False, "1": True}[value]
    except KeyError:
        raise ValueError("must be 0 or 1") from None


def _whole(value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) > 0):
        raise ValueError("must be a whole number above 0")
    return int(value)


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1
    if not 0 < seconds < float("inf"):
        raise ValueError("must be a number of seconds above 0")
    return seconds


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return value

    return parse


def _several(*choices: str) -> Callable[[str], tuple[str, ...]]:
    def parse(value: str) -> tuple[str, ...]:
        given = tuple(part.strip() for part in value.split(","))
        if not set(given) <= set(choices):
            raise ValueError(f"must be a comma list of: {', '.join(choices)}")
        return given

    return parse


def _principals(value: str) -> tuple[str, ...]:
    """Subjects of certificates have commas."""
    return tuple(part.strip() for part in value.split("|"))


def _absolute(value: str) -> Path:
    return Path(value).absolute()


def _setting(
    parse: Callable[[str], Any], meaning: str, *, default: Any = MISSING, is_secret: bool = False
) -> Any:
    """Declare a setting; ``meaning`` is its line in docs/operating.md."""
    metadata = {"parse": parse, "meaning": meaning}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata, repr=not is_secret)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings; each is ``JOSE_HSM_`` and its name in capitals."""

    pkcs11_module: Path = _setting(_absolute, "path of the PKCS#11 library")
    token_label: str | None = _setting(_text, "label of the token", default=None)
    token_serial: str | None = _setting(_text, "serial number of the token", default=None)
    token_uri: str | None = _setting(
        _text, "token as an RFC 7512 URI (`token` and `serial`), instead of the two", default=None
    )
    pin_file: Path | None = _setting(
        _absolute, "file with the user PIN, read at each login", default=None
    )
    pin: str | None = _setting(
        _text, "the user PIN itself; for development only", default=None, is_secret=True
    )
    state_dir: Path = _setting(
        _absolute, "directory of locks and of the default registry", default=Path("var")
    )
    database_url: str | None = _setting(
        _text,
        "SQLAlchemy URL of the registry; by default SQLite in `STATE_DIR`",
        default=None,
        is_secret=True,
    )
    bind: str = _setting(_text, "address and port to serve", default="127.0.0.1:8000")
    header_seconds: float = _setting(
        _seconds,
        "wait for the header section of a request that has begun, and for a TLS handshake",
        default=10.0,
    )
    request_seconds: float = _setting(
        _seconds,
        "the same for a whole request, then 408; and for a client that takes nothing of its answer",
        default=30.0,
    )
    sessions: int = _setting(
        _whole, "PKCS#11 sessions of each worker, lent to one operation at a time", default=4
    )
    session_wait_seconds: float = _setting(
        _seconds, "wait for a free session in seconds, then 503", default=2.0
    )
    generations: int = _setting(
        _whole,
        "RSA pairs that each worker generates, or checks to import, at a time, in a lane of their "
        "own; seven more may wait, others get 503",
        default=1,
    )
    call_seconds: float = _setting(
        _seconds,
        "an operation that has not come back from the token after so many seconds ends its "
        "worker, which is replaced",
        default=10.0,
    )
    generation_seconds: float = _setting(
        _seconds, "the same for generating an RSA pair, and for opening the token", default=120.0
    )
    check_results: bool = _setting(
        _flag,
        "1 decrypts every new ciphertext and computes every MAC twice before it is given away; "
        "signatures are always verified",
        default=True,
    )
    fips: bool = _setting(_flag, "1 refuses OKP, EdDSA, X25519, ML-DSA and RSA1_5", default=False)
    rsa1_5: bool = _setting(
        _flag, "1 offers RSA1_5; read the warning in the README first", default=False
    )
    cek: Literal["process", "token"] = _setting(
        _choice("process", "token"),
        "`token` refuses algorithms whose CEK would pass through the process",
        default="process",
    )
    auth: tuple[str, ...] = _setting(
        _several("token", "jwt", "mtls"),
        "ways to authenticate, of `token`, `jwt`, `mtls`; without any only loopback is served",
        default=(),
    )
    auth_failures: int = _setting(
        _whole,
        "failed attempts a minute that a worker answers with 401 per address, then 429",
        default=10,
    )
    everybody_creates: bool = _setting(
        _flag, "0 lets only those with role `creator` or `admin` make keys", default=True
    )
    admins: tuple[str, ...] = _setting(
        _principals, "principals with role `admin`, with a vertical bar between them", default=()
    )
    auditors: tuple[str, ...] = _setting(
        _principals, "principals with role `auditor`, likewise", default=()
    )
    jwt_issuer: str | None = _setting(_text, "`iss` that JWTs must have", default=None)
    jwt_audience: str | None = _setting(_text, "`aud` that JWTs must have", default=None)
    jwt_jwks: str | None = _setting(
        _text, "JWK set of the issuer: a file or an https URL", default=None
    )
    jwt_jwks_seconds: float = _setting(
        _seconds,
        "how long the last good JWK set is believed while it cannot be read anew, in seconds; "
        "then 503",
        default=86400.0,
    )
    jwt_algorithms: tuple[str, ...] = _setting(
        _several(*ASYMMETRIC),
        "`alg` that JWTs may have",
        default=("RS256", "PS256", "ES256", "EdDSA", "Ed25519"),
    )
    jwt_typ: str | None = _setting(
        _text, "`typ` that JWTs must have, as `at+jwt`; by default any", default=None
    )
    jwt_principal_claim: str = _setting(
        _text, "claim that names the principal; dots lead into nested claims", default="sub"
    )
    jwt_roles_claim: str = _setting(
        _text, "claim that lists roles, likewise: `realm_access.roles`", default="roles"
    )
    jwt_lifetime_seconds: float = _setting(
        _seconds, "longest lifetime of a JWT in seconds", default=86400.0
    )
    tls_certificate: Path | None = _setting(
        _absolute, "certificate chain, to serve TLS without a proxy", default=None
    )
    tls_key: Path | None = _setting(_absolute, "its private key", default=None)
    tls_client_ca: Path | None = _setting(
        _absolute, "certificates that client certificates must lead to", default=None
    )
    proxy_secret_file: Path | None = _setting(
        _absolute,
        "file with the secret by which nginx may say who the client is (`deploy/nginx`)",
        default=None,
    )
    jwks_tagging: bool = _setting(
        _flag, "0 generates pairs without the tag `jwks`, which publishes them", default=True
    )
    jwks_keys: int = _setting(
        _whole, "most keys in `/.well-known/jwks.json`; the last tagged count", default=100
    )
    log_level: str = _setting(
        _choice("debug", "info", "warning", "error"),
        "`debug`, `info` (a line for each request), `warning` or `error`",
        default="info",
    )
    audit_log: str | None = _setting(
        _text,
        "path of the audit log, by default `audit.log` in `STATE_DIR`; `off` for none",
        default=None,
    )
    pages: bool = _setting(
        _flag, "0 serves neither `/docs` nor `/status`, the pages for people", default=True
    )
    server_timing: bool = _setting(
        _flag, "1 answers with `Server-Timing`: wait for a session, token, total", default=False
    )

    def __post_init__(self) -> None:
        """Refuse settings that do not go together."""
        named = [self.token_label or self.token_serial, self.token_uri]
        if sum(map(bool, named)) != 1:
            raise ConfigError(
                f"set {PREFIX}TOKEN_LABEL or {PREFIX}TOKEN_SERIAL, or {PREFIX}TOKEN_URI "
                f"instead of them{_not_both(*named)}"
            )
        if (self.pin_file is None) == (self.pin is None):
            raise ConfigError(
                f"set {PREFIX}PIN_FILE, or for development only {PREFIX}PIN"
                f"{_not_both(self.pin_file, self.pin)}"
            )
        if not self.bind.startswith("unix:") and not self.bind.rpartition(":")[2].isdigit():
            raise ConfigError(f"{PREFIX}BIND must be like 127.0.0.1:8000 or unix:/path")
        if not self.auth and not _binds_loopback(self.bind):
            raise ConfigError(
                f"{PREFIX}BIND must be a loopback address: without authentication everybody "
                f"who can connect can use every key. To serve others set {PREFIX}AUTH"
            )
        _parse_token_uri(self.token_uri)
        self._require_ways()

    def _require_ways(self) -> None:
        """Refuse ways to authenticate that lack what they need."""
        if "jwt" in self.auth:
            for name in ("jwt_issuer", "jwt_audience", "jwt_jwks"):
                if getattr(self, name) is None:
                    raise ConfigError(f"set {PREFIX}{name.upper()}: {PREFIX}AUTH has jwt")
            _require_safe(str(self.jwt_jwks))
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError(f"set both {PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY, or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ConfigError(
                f"set {PREFIX}TLS_CERTIFICATE and {PREFIX}TLS_KEY: {PREFIX}TLS_CLIENT_CA is of no "
                "use without them"
            )
        sources = [self.tls_client_ca, self.proxy_secret_file]
        if "mtls" in self.auth and sum(map(bool, sources)) != 1:
            raise ConfigError(
                f"set {PREFIX}TLS_CLIENT_CA, or behind nginx {PREFIX}PROXY_SECRET_FILE"
                f"{_not_both(*sources)}: {PREFIX}AUTH has mtls"
            )

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Self:
        """Read ``JOSE_HSM_*``, an empty one as not set; raise ``ConfigError`` with what to set."""
        known = {f"{PREFIX}{setting.name.upper()}": setting for setting in fields(cls)}
        given = {name: value for name, value in env.items() if name.startswith(PREFIX) and value}
        for name in given.keys() - known.keys():
            nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
            raise ConfigError(f"unknown setting {name}; did you mean {nearest}?")
        return cls(**dict(_parsed(known, given)))

    @property
    def host(self) -> str:
        """A random name of those who share this ``state_dir``, kept there."""
        path = self.state_dir / "host"
        if not path.exists():
            with hsm.file_lock(path.with_name("host.lock")):  # only once
                if not path.exists():
                    hsm.replace(path, f"{uuid4()}\n".encode("ascii"), synced=True)
        return path.read_text("ascii").strip()

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
        """Return the user PIN; raise ``OSError`` if its file cannot be read."""
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
        token = _parse_token_uri(self.token_uri)
        return hsm.Settings(
            module=self.pkcs11_module,
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
            fips=self.fips,
            process_allowed=self.cek == "process",
            opted_in=frozenset({"RSA1_5"} if self.rsa1_5 else ()),
        )


def settings_table() -> str:
    """Return the rows of the table in docs/operating.md: variable, default, meaning."""
    return "\n".join(
        f"| `{PREFIX}{setting.name.upper()}` | {_shown(setting.default)} | "
        f"{setting.metadata['meaning']} |"
        for setting in fields(Config)
    )


def _shown(default: Any) -> str:
    if default is MISSING:
        return "required"
    if default in {None, "", ()}:
        return ""
    if isinstance(default, tuple):
        return f"`{','.join(default)}`"
    return f"`{int(default) if isinstance(default, bool) else default}`"


def _parsed(known: Mapping[str, Field[Any]], given: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, setting in known.items():
        if name in given:
            try:
                yield setting.name, setting.metadata["parse"](given[name])
            except ValueError as error:
                raise ConfigError(f"{name} {error}") from None
        elif setting.default is MISSING:
            raise ConfigError(f"set {name}: {setting.metadata['meaning']}")


def _not_both(*settings: object) -> str:
    return ", not both" if all(settings) else ""


def _binds_loopback(bind: str) -> bool:
    return bind.startswith("unix:") or is_loopback(bind.rpartition(":")[0].strip("[]"))


def _require_safe(location: str) -> None:
    """Refuse to fetch keys over a network on which anybody can change them."""
    url = urlsplit(location)
    if url.scheme == "http" and not is_loopback(url.hostname or ""):
        raise ConfigError(f"{PREFIX}JWT_JWKS must be a file or an https URL")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _parse_token_uri(uri: str | None) -> Mapping[str, str]:
    """Return the attributes of a PKCS#11 URI (RFC 7512 §2.3)."""
    if uri is None:
        return {}
    scheme, _, path = uri.partition(":")
    attributes = dict(part.partition("=")[::2] for part in path.split(";"))
    if scheme != "pkcs11" or not attributes.keys() <= {"token", "serial"}:
        raise ConfigError(
            f"{PREFIX}TOKEN_URI must be like pkcs11:token=LABEL;serial=NUMBER, no other attributes"
        )
    return {name: unquote(value) for name, value in attributes.items()}
