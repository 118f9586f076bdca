"""The token's own rate: unwrap a P-256 key, sign, destroy it, through python-pkcs11 alone.

The key has the attributes that the service gives one: each is more for the token to do.
"""

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, Session
from pkcs11.util.ec import encode_named_curve_parameters

from hsm.algorithms.keyspec import KeySpec
from hsm.cryptoki.attributes import Templates, attribute_mapper

_PAD: Final = Mechanism.AES_KEY_WRAP_PAD
_DIGEST: Final = hashlib.sha256(bytes(3)).digest()
_P256: Final = encode_named_curve_parameters("secp256r1")
_MADE: Final = {Attribute.SIGN: True, Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: True}
_UNWRAPPED: Final = Templates().unwrapped(KeySpec(kty="EC", alg="ES256", crv="P-256"))


@contextmanager
def token(settings: Mapping[str, str]) -> Iterator[Callable[[int], tuple[float, float]]]:
    """Give what does it so often in a process of its own, and returns the seconds of one.

    First those of the clock, then those of the processor.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=_open, initargs=(dict(settings),)) as process:
        yield lambda times: process.submit(_use, times).result()


class _Opened:
    """What the process has: the key-encryption key, and the key that it has encrypted."""

    kek: Any
    wrapped: bytes


def _open(settings: Mapping[str, str]) -> None:
    os.environ["SOFTHSM2_CONF"] = settings["SOFTHSM2_CONF"]
    module = pkcs11.lib(settings["JOSE_HSM_PKCS11_MODULE"])
    pin = Path(settings["JOSE_HSM_PIN_FILE"]).read_text("utf-8")
    found = module.get_token(token_label=settings["JOSE_HSM_TOKEN_LABEL"])
    session: Session = found.open(rw=True, user_pin=pin, attribute_mapper=attribute_mapper())
    _Opened.kek = session.generate_key(KeyType.AES, 256, store=False)
    domain = session.create_domain_parameters(KeyType.EC, {Attribute.EC_PARAMS: _P256}, local=True)
    _, private = domain.generate_keypair(store=False, private_template=_MADE)
    _Opened.wrapped = _Opened.kek.wrap_key(private, mechanism=_PAD)


def _use(times: int) -> tuple[float, float]:
    started, used = time.perf_counter(), time.process_time()
    for _ in range(times):
        key = _Opened.kek.unwrap_key(key_data=_Opened.wrapped, mechanism=_PAD, **_UNWRAPPED)
        key.sign(_DIGEST, mechanism=Mechanism.ECDSA)
        key.destroy()
    return (time.perf_counter() - started) / times, (time.process_time() - used) / times
