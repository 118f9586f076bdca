"""How a setting is declared, read from the environment, and checked."""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from app.duration import LONGEST
from app.rights import KINDS, is_principal

PREFIX: Final = "JOSE_HSM_"
CLIENT: Final = frozenset({f"{PREFIX}URL", f"{PREFIX}API_TOKEN_FILE"})
"""What the command line reads to ask a service; it is no setting of the service itself."""

WORKERS: Final = "WEB_CONCURRENCY"

_AFTER_COMMA: Final = re.compile(rf",\s*(?:{'|'.join(KINDS)}):")
_ADDRESS: Final = re.compile(r"(?:\[[^\[\]]+\]|[^\[\]:/,\s]*):[0-9]{1,5}", re.ASCII)
_LAST_PORT: Final = 65535
_MOST: Final = 1_000_000_000
_MOST_ROOM: Final = 10_000
_EXPORTER: Final = "opentelemetry.exporter.otlp.proto.http"


class ConfigError(ValueError):
    """A setting is missing or wrong; the text says which, and what to set."""


def text(value: str) -> str:
    """Return ``value``."""
    return value


def flag(value: str) -> bool:
    """Return 0 or 1 as a truth value."""
    try:
        return {"0": False, "1": True}[value]
    except KeyError:
        raise ValueError("must be 0 or 1") from None


def whole(value: str, most: int = _MOST) -> int:
    """Return a number above 0; a larger one is of no use, and more than a database compares."""
    is_short = value.isascii() and value.isdigit() and len(value) <= len(str(most))
    if not (is_short and 0 < int(value) <= most):
        raise ValueError(f"must be a whole number above 0, {most} at most")
    return int(value)


def few(value: str) -> int:
    """Return a number of what a worker makes room for when it starts."""
    return whole(value, _MOST_ROOM)


def workers(env: Mapping[str, str]) -> int | None:
    """Return how many workers gunicorn's variable in ``env`` asks for, if it does.

    Of what is no number gunicorn says too little. Raises ``ConfigError``.
    """
    if not env.get(WORKERS):
        return None
    try:
        return whole(env[WORKERS])
    except ValueError as error:
        raise ConfigError(f"{WORKERS} {error}") from None


def seconds(value: str) -> float:
    """Return a number of seconds above 0; Python cannot wait for much longer ones."""
    try:
        number = float(value)
    except ValueError:
        number = -1
    longest = LONGEST.total_seconds()
    if not 0 < number <= longest:
        raise ValueError(f"must be a number of seconds above 0, {longest:.0f} at most")
    return number


def choice(*choices: str) -> Callable[[str], str]:
    """Return a parser of one of ``choices``."""

    def parse(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return value

    return parse


def several(*choices: str) -> Callable[[str], tuple[str, ...]]:
    """Return a parser of some of ``choices``, with commas between them."""

    def parse(value: str) -> tuple[str, ...]:
        given = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
        if not set(given) <= set(choices):
            raise ValueError(f"must be a comma list of: {', '.join(choices)}")
        return given

    return parse


def principals(value: str) -> tuple[str, ...]:
    """Return what vertical bars divide: subjects of certificates have commas.

    Whoever is divided from another by a comma would silently be nobody.
    """
    given = tuple(part.strip() for part in value.split("|"))
    if not all(map(is_principal, given)) or _AFTER_COMMA.search(value):
        raise ValueError("must be principals like token:ci, with a vertical bar between them")
    return given


def collector(value: str) -> str:
    """Return the URL of a collector of OpenTelemetry; one with a secret in it would be shown."""
    url = _http_url(value)
    if url is None or url.query or url.fragment:
        raise ValueError("must be an http or https URL without a user and a query")
    if not _is_there(_EXPORTER):
        raise ValueError("needs packages: scripts/setup requirements-otlp.lock, or jose-hsm[otlp]")
    return value


def _http_url(text: str) -> SplitResult | None:
    """Return the parts of a URL that can be asked and shown: its password would be, too."""
    try:
        url = urlsplit(text)
        is_whole = url.hostname and url.port != 0 and "@" not in url.netloc
    except ValueError:
        return None
    return url if is_whole and url.scheme in {"http", "https"} else None


def _is_there(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # what it is in is not there either
        return find_spec(module) is not None
    return False


def absolute(value: str) -> Path:
    """Return a path that does not depend on where the process is."""
    return Path(value).absolute()


def setting(
    parse: Callable[[str], Any], meaning: str, *, default: Any = MISSING, is_secret: bool = False
) -> Any:
    """Declare a setting; ``meaning`` is its line in docs/operating.md."""
    metadata = {"parse": parse, "meaning": meaning}
    if default is MISSING:
        return field(metadata=metadata)
    return field(default=default, metadata=metadata, repr=not is_secret)


def name_of(setting: Field[Any]) -> str:
    """Return what a setting is called in the environment; a word of Python's ends with ``_``."""
    return f"{PREFIX}{setting.name.rstrip('_').upper()}"


def read(settings: Iterable[Field[Any]], env: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of ``settings`` that are set in ``env``, by name; empty is not set.

    Raises ``ConfigError`` for one that is unknown, missing or malformed.
    """
    known = {name_of(one): one for one in settings}
    given = {name: value for name, value in env.items() if name.startswith(PREFIX) and value}
    for name in given.keys() - known.keys() - CLIENT:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0)[0]
        raise ConfigError(f"unknown setting {name}; did you mean {nearest}?")
    return dict(_parsed(known, given))


def _parsed(known: Mapping[str, Field[Any]], given: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
    for name, setting in known.items():
        if name in given:
            try:
                yield setting.name, setting.metadata["parse"](given[name])
            except ValueError as error:
                raise ConfigError(f"{name} {error}") from None
        elif setting.default is MISSING:
            raise ConfigError(f"set {name}: {setting.metadata['meaning']}")


def not_both(*settings: object) -> str:
    """Return what to add to a text on settings that exclude one another, if all are given."""
    return ", not both" if all(settings) else ""


def is_address(bind: str) -> bool:
    """Tell whether ``bind`` names a path, or a port that there is."""
    if bind.startswith("unix:"):
        return bind != "unix:"
    is_formed = _ADDRESS.fullmatch(bind) is not None
    return is_formed and int(bind.rpartition(":")[2]) <= _LAST_PORT


def binds_loopback(bind: str) -> bool:
    """Tell whether only this machine can connect to the address ``bind``."""
    return bind.startswith("unix:") or is_loopback(bind.rpartition(":")[0].strip("[]"))


def require_safe(location: str) -> None:
    """Refuse to fetch keys over a network on which anybody can change them."""
    if "://" not in location:
        return
    url = _http_url(location)
    if url is None or (url.scheme == "http" and not is_loopback(url.hostname or "")):
        raise ConfigError(f"{PREFIX}JWT_JWKS must be a file or an https URL, without a user")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can connect to ``host``."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    # Before Python 3.13 an address of IPv4 in one of IPv6 is nobody's.
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def parse_token_uri(uri: str | None) -> Mapping[str, str]:
    """Return the attributes of a PKCS#11 URI (RFC 7512 §2.3).

    What it must not have is not repeated: a query may hold a PIN (§2.4).
    """
    if uri is None:
        return {}
    scheme, _, path = uri.partition(":")
    attributes = dict(part.partition("=")[::2] for part in path.split(";"))
    is_known = attributes.keys() <= {"token", "serial"} and all(attributes.values())
    if scheme != "pkcs11" or "?" in path or not is_known:
        raise ConfigError(
            f"{PREFIX}TOKEN_URI must be like pkcs11:token=LABEL;serial=NUMBER, no other attributes"
        )
    return {name: unquote(value) for name, value in attributes.items()}
