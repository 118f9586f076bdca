"""How often in a second a token performs an operation, as the service asks for it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import RSA
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, MACS, SIGNATURES
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.session import Session
from hsm.operations import content, mac, signing
from hsm.operations.session_keys import SessionKeys

Operation = Callable[[], object]

_MESSAGE: Final = bytes(64)
_GCM: Final = CONTENT_ENCRYPTIONS["A256GCM"]
_HS256: Final = MACS["HS256"]
_RSA_BITS: Final = 2048


class Bench(NamedTuple):
    """What operations are performed with; ``rows`` are those of the token."""

    session: Session
    keys: SessionKeys
    rows: Mapping[str, Any]


class Rate(NamedTuple):
    """An algorithm, and what gives its operation, ready, for one ``with`` block."""

    alg: str
    ready: Callable[[Bench], AbstractContextManager[Operation]]


def measure(rate: Rate, bench: Bench, seconds: float) -> float:
    """Return operations a second, of one caller without a pause: one at least is done."""
    with rate.ready(bench) as operation:
        count, started = 0, time.perf_counter()
        while not count or time.perf_counter() - started < seconds:
            operation()
            count += 1
        return count / (time.perf_counter() - started)


def _pair(bench: Bench, alg: str) -> AbstractContextManager[Keys]:
    (kind, curve), *_ = SIGNATURES[alg].keys
    spec = KeySpec(kty=kind.ktys[0], alg=alg, crv=curve.crv if curve else None)
    bits = _RSA_BITS if kind is RSA else None
    return bench.keys.generated_pair(bench.session, spec, bits)


@contextmanager
def _sign(alg: str, bench: Bench) -> Iterator[Operation]:
    with _pair(bench, alg) as keys:
        yield partial(signing.sign, keys, bench.rows[alg], _MESSAGE)


@contextmanager
def _verify(alg: str, bench: Bench) -> Iterator[Operation]:
    row = bench.rows[alg]
    with _pair(bench, alg) as keys:
        signature = signing.sign(keys, row, _MESSAGE)
        yield partial(signing.verify, keys, row, _MESSAGE, signature)


@contextmanager
def _encrypt(bench: Bench) -> Iterator[Operation]:
    with bench.keys.generated(bench.session, _GCM, _GCM.key_bytes) as cek:
        yield partial(content.seal, cek, _GCM, _MESSAGE, _MESSAGE)


@contextmanager
def _decrypt(bench: Bench) -> Iterator[Operation]:
    with bench.keys.generated(bench.session, _GCM, _GCM.key_bytes) as cek:
        sealed = content.seal(cek, _GCM, _MESSAGE, _MESSAGE)
        yield partial(content.unseal, cek, _GCM, sealed, _MESSAGE)


@contextmanager
def _mac(bench: Bench) -> Iterator[Operation]:
    with bench.keys.generated(bench.session, _HS256, _HS256.mac_bytes) as keys:
        yield partial(mac.compute, keys, _HS256, _MESSAGE)


@contextmanager
def _generate(bench: Bench) -> Iterator[Operation]:
    def generate() -> None:
        with _pair(bench, "RS256"):
            pass

    yield generate


RATES: Final[Mapping[str, Rate]] = MappingProxyType(
    {
        "sign ES256": Rate("ES256", partial(_sign, "ES256")),
        "sign RS256": Rate("RS256", partial(_sign, "RS256")),
        "verify ES256": Rate("ES256", partial(_verify, "ES256")),
        "encrypt A256GCM": Rate("A256GCM", _encrypt),
        "decrypt A256GCM": Rate("A256GCM", _decrypt),
        "mac HS256": Rate("HS256", _mac),
        "generate RSA-2048": Rate("RS256", _generate),
    }
)
