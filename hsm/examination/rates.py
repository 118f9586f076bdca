"""How often in a second a token performs an operation, as the service asks for it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from hsm.algorithms.families import Algorithm
from hsm.algorithms.keyspec import KeySpec
from hsm.algorithms.kinds import RSA
from hsm.algorithms.tables import CONTENT_ENCRYPTIONS, MACS, SIGNATURES
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.canary import Canary
from hsm.cryptoki.handles import Handle, Key, temporary
from hsm.cryptoki.material import PublicKey
from hsm.cryptoki.session import Session
from hsm.operations import content, mac, signing

Operation = Callable[[], object]

_MESSAGE: Final = bytes(64)
_GCM: Final = CONTENT_ENCRYPTIONS["A256GCM"]
_HS256: Final = MACS["HS256"]
_RSA_BITS: Final = 2048


class Bench(NamedTuple):
    """What operations are performed with."""

    session: Session
    templates: Templates
    canary: Canary


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


@contextmanager
def _pair(bench: Bench, alg: str) -> Iterator[tuple[Key, Key, PublicKey]]:
    """Make a pair for one ``with`` block; give its halves and the numbers of the public one."""
    row, session = SIGNATURES[alg], bench.session
    (kind, curve), *_ = row.keys
    spec = KeySpec(kty=kind.ktys[0], alg=alg, crv=curve.crv if curve else None)
    pair = session.generate_keypair(
        kind.key_type,
        _RSA_BITS if kind is RSA else None,
        **bench.templates.pair_generation(spec),
    )
    public, private = (Key(session, Handle.of(half), half) for half in pair)
    assert public.public is not None  # noqa: S101  # ``Handle.of`` reads that of every public half
    with temporary(private), temporary(public):
        yield public, private, public.public


@contextmanager
def _secret(bench: Bench, row: Algorithm, key_bytes: int) -> Iterator[Key]:
    made = bench.session.generate_key(
        row.kind.key_type, 8 * key_bytes, **bench.templates.secret_generation([row])
    )
    with temporary(Key(bench.session, Handle.of(made), made)) as key:
        yield key


@contextmanager
def _sign(alg: str, bench: Bench) -> Iterator[Operation]:
    with _pair(bench, alg) as (_, private, numbers):
        yield lambda: signing.sign(private, SIGNATURES[alg], _MESSAGE, numbers)


@contextmanager
def _verify(alg: str, bench: Bench) -> Iterator[Operation]:
    row = SIGNATURES[alg]
    with _pair(bench, alg) as (public, private, numbers):
        signature = signing.sign(private, row, _MESSAGE, numbers)
        yield lambda: signing.verify(public, row, _MESSAGE, signature, bench.canary)


@contextmanager
def _encrypt(bench: Bench) -> Iterator[Operation]:
    with _secret(bench, _GCM, _GCM.key_bytes) as key:
        yield lambda: content.encrypt((key,), _GCM, _MESSAGE, _MESSAGE)


@contextmanager
def _decrypt(bench: Bench) -> Iterator[Operation]:
    with _secret(bench, _GCM, _GCM.key_bytes) as key:
        sealed = content.encrypt((key,), _GCM, _MESSAGE, _MESSAGE)
        yield lambda: content.decrypt((key,), _GCM, sealed, _MESSAGE, bench.canary)


@contextmanager
def _mac(bench: Bench) -> Iterator[Operation]:
    with _secret(bench, _HS256, _HS256.mac_bytes) as key:
        yield lambda: mac.compute(key, _HS256, _MESSAGE)


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
