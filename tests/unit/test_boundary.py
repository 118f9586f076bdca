"""Imports run one way, errors have a status each, and nothing secret has a representation."""

import ast
import hashlib
import inspect
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import app
import hsm
from app.config import Config
from app.errors import AppError
from app.http.answers import STATUS
from app.registry import Key, Origin, Residency
from app.schemas.keys import KeyRequest
from app.service import service_of
from hsm import Blob, KeyRef, KeySpec
from hsm.cryptoki.handles import Handle, PublicHandle
from hsm.cryptoki.handles import Key as KeyInHand
from hsm.life.work import Creation, Use
from hsm.operations.cek import Outcome, Unwrapped, Wrapped
from hsm.software.oaep import Decoded

ROOT = Path(__file__).parents[2]


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    _module_name(path): path
    for package in ("app", "hsm")
    for path in sorted((ROOT / package).rglob("*.py"))
}


@cache
def _targets(path: Path) -> frozenset[str]:
    return frozenset(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide where they lead"
            assert node.module is not None
            yield from (_imported(node.module, alias.name) for alias in node.names)


def _imported(module: str, name: str) -> str:
    """``module.name`` if that is a module of ours, else ``module``: ``from app import jose``."""
    return f"{module}.{name}" if f"{module}.{name}" in MODULES else module


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _offences(importers: str, *forbidden: str, but: tuple[str, ...] = ()) -> list[str]:
    """Imports of ``forbidden`` in ``importers``, apart from the modules of ``but``."""
    return [
        f"{module} imports {target}"
        for module, path in MODULES.items()
        if _is_within(module, importers) and not any(_is_within(module, name) for name in but)
        for target in _targets(path)
        if any(_is_within(target, name) for name in forbidden)
    ]


def test_the_modules_are_found_and_so_are_their_imports():
    assert {"app", "app.keys.keyring", "app.registry.registry", "hsm.adapter"} <= MODULES.keys()
    assert _offences("hsm", "pkcs11")
    assert _offences("app", "hsm")
    assert _offences("app.http", "app.keys")


def test_only_hsm_imports_pkcs11():
    assert _offences("app", "pkcs11", "asn1crypto") == []


def test_only_who_has_a_collector_needs_opentelemetry():
    assert _offences("app", "opentelemetry", but=("app.observability.spans",)) == []
    assert _offences("app", "app.observability.spans", but=("app.factory",)) == []


def test_hsm_knows_nothing_of_app_and_http_and_sql():
    forbidden = ("app", "flask", "marshmallow", "werkzeug", "sqlalchemy", "alembic", "gunicorn")
    assert _offences("hsm", *forbidden) == []


def test_app_imports_what_hsm_exports():
    """That is ``hsm`` itself, and none of its modules."""
    modules = [name for name in MODULES if name.startswith("hsm.")]
    assert _offences("app", *modules) == []


def test_http_reaches_the_registry_through_the_keys():
    assert _offences("app.http", "app.registry") == []


def test_schemas_are_functions_of_the_body():
    forbidden = ("app.keys", "app.registry", "app.http", "flask", "werkzeug")
    assert _offences("app.schemas", *forbidden) == []


def test_the_keys_know_nothing_of_http():
    assert _offences("app.keys", "app.http", "flask", "werkzeug", "marshmallow") == []


def test_the_registry_knows_nothing_of_those_who_use_it():
    forbidden = ("app.http", "app.keys", "app.schemas", "app.auth", "flask")
    assert _offences("app.registry", *forbidden) == []


def test_who_asks_a_service_has_nothing_of_it():
    """But for how JSON, base64url and the words of the API are written."""
    rooms = {"app.client", "app.terminal"}
    shared = {"app.compact_json", "app.jose", "app.rights", "app.settings"}
    elsewhere = [name for name in MODULES if name.split(".")[0] == "hsm" or name.startswith("app.")]
    forbidden = [
        name for name in elsewhere if not any(_is_within(name, room) for room in rooms | shared)
    ]
    for room in rooms:
        assert _offences(room, *forbidden, "flask", "marshmallow") == []


def test_only_the_registry_knows_sql():
    assert _offences("app", "sqlalchemy", "alembic", but=("app.registry",)) == []


# --- The house ---

MOST_FILES = 15
MOST_LINES = 350


def test_no_room_is_full():
    files = Counter(str(path.parent.relative_to(ROOT)) for path in MODULES.values())
    assert {room: number for room, number in files.items() if number > MOST_FILES} == {}


def test_no_file_is_long():
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: number for name, number in lines.items() if number > MOST_LINES} == {}


SILENCING = re.compile("# (ruff: )?(noqa|type: ignore)")
SILENCED = re.compile(r"# ((ruff: )?noqa: [A-Z]+\d+(, [A-Z]+\d+)*|type: ignore\[[a-z-]+\])  # \S")


def test_no_check_is_silenced_without_its_code_and_a_reason_on_the_line():
    lines = {
        f"{path.relative_to(ROOT)}:{number}": line
        for folder in ("app", "hsm", "scripts", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
    }
    silencing = {place: line for place, line in lines.items() if SILENCING.search(line)}
    assert len(silencing) > 50
    assert [place for place, line in silencing.items() if not SILENCED.search(line)] == []


def test_no_imports_run_in_a_circle():
    """Not even those that are done late, or for types alone."""
    imports = {name: _targets(path) & MODULES.keys() for name, path in MODULES.items()}
    without_self = {name: targets - {name} for name, targets in imports.items()}
    assert len([*TopologicalSorter(without_self).static_order()]) == len(MODULES)


def _subclasses(base: type) -> Iterator[type]:
    subclass: type
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _import_everything() -> None:
    for package in (app, hsm):
        for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if "migrations" not in found.name:
                import_module(found.name)


def test_every_error_has_a_status():
    _import_everything()
    errors = {hsm.HsmError, *_subclasses(hsm.HsmError), *_subclasses(AppError)}
    ours = {error for error in errors if error.__module__.split(".")[0] in ("app", "hsm")}
    assert ours == set(STATUS)


def test_every_error_of_hsm_is_exported():
    exported = {value for value in vars(hsm).values() if inspect.isclass(value)}
    assert set(_subclasses(hsm.HsmError)) <= exported


PIN = "4711-secret-pin"
SECRET = hashlib.sha256(b"key bytes").digest()
HANDLE = 1234567
PASSWORD = "registry-password"
SPEC = KeySpec(kty="oct", alg="A256GCM", bits=256)


def _config(**pin: Any) -> Config:
    return Config(
        pkcs11_module=Path("/lib/module.so"),
        token_label="token",
        database_url=f"postgresql://user:{PASSWORD}@host/database",
        **pin,
    )


def _row() -> Key:
    return Key(
        kid=uuid4(),
        kid_public=None,
        owner="owner",
        spec=SPEC,
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
    )


def _private_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(SECRET), ec.SECP256R1())


def _handled() -> KeyInHand:
    session: Any = SimpleNamespace(raw=None)  # it is not spoken to
    return KeyInHand(session, Handle(HANDLE))


def _ref() -> KeyRef:
    blob = Blob(kek=uuid4(), octets=SECRET, seal=SECRET)
    return KeyRef(kid=uuid4(), spec=SPEC, blob=blob, row=SECRET)


HOLDERS = {
    "config with PIN": lambda: _config(pin=PIN),
    "settings": lambda: _config(pin=PIN).hsm_settings,
    "request with a secret": lambda: KeyRequest(spec=SPEC, material=SECRET),
    "request with a private key": lambda: KeyRequest(spec=SPEC, material=_private_key()),
    "row": _row,
    "handle": lambda: Handle(HANDLE),
    "key in hand": _handled,
    "public handle": lambda: PublicHandle(HANDLE, _private_key().public_key()),
    "name of a wrapped key": _ref,
    "creation of a key": lambda: Creation(ref=_ref(), material=SECRET),
    "use of a key": lambda: Use(
        ref=_ref(), objects=(), name="A256GCM", verb=len, arguments=(SECRET,)
    ),
    "unwrapped": lambda: Unwrapped(_handled(), Outcome.RECOVERED, SECRET),
    "wrapped": lambda: Wrapped(_handled(), b"encrypted key"),
    "decoded padding": lambda: Decoded(bytearray(SECRET), True, True),
}


@pytest.mark.parametrize("holder", HOLDERS.values(), ids=HOLDERS)
def test_nothing_secret_is_shown(holder):
    held = holder()
    for shown in (repr(held), str(held), f"{held}", f"{[held]}"):
        for secret in (
            PIN,
            PASSWORD,
            str(HANDLE),
            f"{HANDLE:x}",
            SECRET.hex(),
            repr(SECRET)[2:-1],
            str(int.from_bytes(SECRET)),
        ):
            assert secret not in shown


def test_the_pin_of_a_file_is_not_shown(tmp_path):
    (tmp_path / "pin").write_text(PIN)
    config = _config(pin_file=tmp_path / "pin")
    assert config.read_pin() == PIN
    assert PIN not in repr(config) + repr(config.hsm_settings)


def test_objects_that_hold_the_token_do_not_show_the_pin(application, config):
    pin = config.read_pin()
    token = service_of(application).hsm
    for held in (token, token._connection, token._connection.token, token._connection.token.pool):
        assert pin not in repr(held)
