"""X25519 where a token has it under the numbers of PKCS#11 v3.0 and not under SoftHSM's."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from pkcs11 import Attribute, KeyType, Mechanism

from app.config import Config
from app.factory import create_app
from app.service import service_of
from hsm.algorithms.kinds import EC_MONTGOMERY, EC_MONTGOMERY_KEY_PAIR_GEN, X25519
from tests.conftest import wait_for
from tests.shared.api import Api, b64u, unb64u
from tests.shared.drivers import result_of
from tests.shared.injector import OK, Injector
from tests.token.test_connection import _injector
from tests.token.test_variants import ATTRIBUTE_WORDS, template_at

CURVE_NOT_SUPPORTED = 0x140
DATA = b64u("data")
ON_X25519 = {"kty": "OKP", "crv": "X25519"}


@contextmanager
def put(address: int, number: int) -> Iterator[None]:
    """Have another number stand at ``address`` for one ``with`` block."""
    word = ctypes.c_ulong.from_address(address)
    before, word.value = word.value, number
    try:
        yield
    finally:
        word.value = before


def addresses(template: int, count: int) -> dict[int, int]:
    """Where the values of an array of CK_ATTRIBUTE are, by type."""
    words = (ctypes.c_ulong * (ATTRIBUTE_WORDS * count)).from_address(template)
    fields = zip(*[iter(words)] * ATTRIBUTE_WORDS, strict=True)
    return {name: value for name, value, _ in fields}


def speak_montgomery(chaos: Injector) -> None:
    """Have SoftHSM know X25519 as CKK_EC_MONTGOMERY, and not as a curve of Edwards."""

    def generate(original: Any, *words: int) -> int:
        is_x25519 = template_at(*words[2:4]).get(Attribute.EC_PARAMS) == X25519.ec_params
        mechanism = ctypes.c_ulong.from_address(words[1]).value
        if not is_x25519:
            return int(original(*words))
        if mechanism != EC_MONTGOMERY_KEY_PAIR_GEN:
            return CURVE_NOT_SUPPORTED
        with put(words[1], Mechanism.EC_EDWARDS_KEY_PAIR_GEN):
            return int(original(*words))

    def create(original: Any, *words: int) -> int:
        template = template_at(*words[1:3])
        if template.get(Attribute.EC_PARAMS) != X25519.ec_params:
            return int(original(*words))
        at = addresses(*words[1:3])[Attribute.KEY_TYPE]
        if ctypes.c_ulong.from_address(at).value != EC_MONTGOMERY:
            return CURVE_NOT_SUPPORTED
        with put(at, KeyType.EC_EDWARDS):
            return int(original(*words))

    def read(original: Any, *words: int) -> int:
        answer = int(original(*words))
        at = addresses(*words[2:4]).get(Attribute.KEY_TYPE)
        if answer == OK and at and ec_params(original, *words[:2]) == X25519.ec_params:
            ctypes.c_ulong.from_address(at).value = EC_MONTGOMERY
        return answer

    chaos.replace("C_GenerateKeyPair", generate)
    chaos.replace("C_CreateObject", create)
    chaos.replace("C_GetAttributeValue", read)


def ec_params(read: Any, session: int, made: int) -> bytes:
    """CKA_EC_PARAMS of an object, by C_GetAttributeValue."""
    value = ctypes.create_string_buffer(64)
    attribute = (ctypes.c_ulong * ATTRIBUTE_WORDS)(
        Attribute.EC_PARAMS, ctypes.addressof(value), len(value)
    )
    answer = read(session, made, ctypes.addressof(attribute), 1, 0, 0, 0, 0)
    return value.raw[: attribute[2]] if answer == OK else b""


def exchange() -> dict[str, Any]:
    """Make and import keys on such a token, and send each a message."""
    chaos = _injector()
    speak_montgomery(chaos)
    application = create_app(Config.from_env(os.environ))
    token = service_of(application).hsm
    wait_for(token)
    client = application.test_client()
    api = Api(lambda method, path, **arguments: client.open(path, method=method, **arguments))
    private = x25519.X25519PrivateKey.generate()
    keys = [
        api.create(**ON_X25519, alg="ECDH-ES"),
        api.create(**ON_X25519, alg="ECDH-ES+A128KW"),
        api.create(**ON_X25519, alg="ECDH-ES", d=b64u(private.private_bytes_raw())),
    ]
    opened = []
    for key in keys:
        body = {"kid": key["kid"], "alg": key["alg"], "enc": "A256GCM", "data": DATA}
        opened.append(api.ok("/decrypt", api.ok("/encrypt", body))["data"])
    x = unb64u(api.get(f"/keys/{keys[2]['kid']}").body["jwk"]["x"])
    offers = token.offers()
    return {
        "refused": [name for name in offers if "X25519" in offers[name].refused_crvs],
        "opened": opened,
        "is the public half": x == private.public_key().public_bytes_raw(),
        "destroyed": [api.delete(key["kid"]).status for key in keys],
        "Edwards": offers["Ed25519"].is_offered,
    }


def test_x25519_is_offered_where_the_token_has_it_as_ckk_ec_montgomery(environment):
    found = result_of(environment, exchange, proves=True)
    assert found == {
        "refused": [],
        "opened": [DATA] * 3,
        "is the public half": True,
        "destroyed": [204] * 3,
        "Edwards": True,
    }


@pytest.mark.parametrize(
    "number", [EC_MONTGOMERY, EC_MONTGOMERY_KEY_PAIR_GEN], ids=lambda n: n.name
)
def test_python_pkcs11_does_not_name_these_numbers_yet(number):
    """When it does, its names are the ones to be used."""
    with pytest.raises(ValueError, match="not a valid"):
        type(number)(int(number))
