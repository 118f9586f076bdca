"""A token that gives keys more usages than their templates ask for: nobody gets such a key."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pkcs11 import Attribute, KeyType

from hsm import Hsm
from hsm.importing.proof import found_imports
from hsm.life.proof_cache import ProofCache
from tests.http.test_wrapped_imports import body_of as body_of_wrapped
from tests.http.test_wrapped_imports import der, public_of, wrapped_for
from tests.shared.api import Api, b64u
from tests.shared.bodies import body_of
from tests.shared.injector import Injector
from tests.token.test_variants import ATTRIBUTE_WORDS, Template, is_true, template_at

pytestmark = pytest.mark.usefixtures("softhsm")

TEMPLATES = {
    "C_GenerateKey": 2,
    "C_GenerateKeyPair": 4,
    "C_CreateObject": 1,
    "C_UnwrapKey": 5,
}
"""Which argument is the template of the secret or private object, before its length."""
USES_OF_NONE = Attribute.DERIVE
ATTRIBUTE_TYPE_INVALID = 0x12
TRUE = ctypes.c_ubyte(1)

Granting = Callable[[Callable[[Template], bool]], None]


def _granted(is_meant: Any, at: int, original: Any, *words: int) -> int:
    """Make an object of another template than was given, in which one more usage is true."""
    address, count = words[at : at + 2]
    if not is_meant(template_at(address, count)):
        return int(original(*words))
    array = ctypes.c_ulong * (ATTRIBUTE_WORDS * count)
    template = array(*array.from_address(address))
    for index in range(0, len(template), ATTRIBUTE_WORDS):
        if template[index] == USES_OF_NONE:
            template[index + 1] = ctypes.addressof(TRUE)
    return int(original(*words[:at], ctypes.addressof(template), *words[at + 1 :]))


@pytest.fixture
def granting(chaos: Injector) -> Granting:
    """Have the token do so with templates that are meant."""

    def grant(is_meant: Callable[[Template], bool]) -> None:
        for name, at in TEMPLATES.items():
            chaos.replace_own(name, partial(_granted, is_meant, at))

    return grant


def _is_stored(template: Template) -> bool:
    return is_true(template, Attribute.TOKEN)


PRIVATE_KEY = ec.derive_private_key(7, ec.SECP256R1())
PRIVATE_VALUE = {"d": b64u(bytes(31) + b"\7")}
BODIES = {
    "generated pair": body_of("ES256"),
    "generated secret": body_of("A256GCM"),
    "generated secret of two objects": body_of("A128CBC-HS256"),
    "imported pair": body_of("ES256") | PRIVATE_VALUE,
    "imported secret": body_of("HS256") | {"k": b64u(bytes(range(32)))},
}


USES_TOO_MANY = "The token permits more uses of this key than were asked for"


@pytest.fixture(scope="module")
def wrapped(local: Api) -> Iterator[Mapping[str, Any]]:
    """Requests for keys that were wrapped for one that is quickly made."""
    with pytest.MonkeyPatch.context() as quick:
        quick.setattr("hsm.importing.wrapped_imports._BITS", 1024)
        wrapping = local.ok("/wrapping-keys", {})
    pair = body_of("ES256") | public_of(PRIVATE_KEY)
    requests = {
        "pair": body_of_wrapped(wrapping, wrapped_for(wrapping, der(PRIVATE_KEY)), **pair),
        "secret": body_of_wrapped(wrapping, wrapped_for(wrapping, bytes(32)), **body_of("A256GCM")),
    }
    yield requests
    # It is still good, and used up now.
    assert local.delete(local.create(**requests["secret"])["kid"]).status == 204


def _refused(local: Api, token: Hsm, path: str, body: Any) -> str:
    """Why nothing is made; it leaves nothing on the token."""
    before = token.inventory().keys()
    answer = local.post(path, body)
    assert answer.refusal == (422, "crypto_failure")
    assert token.inventory().keys() == before
    return str(answer.body["description"])


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_no_key_is_made_that_may_do_more_than_it_is_for(body, local, token, granting):
    granting(_is_stored)
    assert _refused(local, token, "/keys", body) == USES_TOO_MANY


def test_no_key_of_a_message_is_kept_that_may_do_more_than_it_is_for(local, token, granting):
    kid = local.create(**body_of("A256KW"))["kid"]
    jwe = local.ok("/encrypt", {"kid": kid, "alg": "A256KW", "enc": "A256GCM", "data": ""})
    message = {name: jwe[name] for name in ("protected", "encrypted_key")}
    granting(_is_stored)
    assert _refused(local, token, "/keys/unwrap", message) == USES_TOO_MANY
    assert local.delete(kid).status == 204


@pytest.mark.parametrize("is_meant", [_is_stored, lambda _: True], ids=["stored", "each"])
@pytest.mark.parametrize("kind", ["pair", "secret"])
def test_no_wrapped_key_is_kept_that_may_do_more_than_it_is_for(  # noqa: PLR0913, PLR0917  # fixtures
    kind, is_meant, wrapped, local, token, granting
):
    token.imports.wrapping_spec()  # has been tried
    granting(is_meant)
    said = "The wrapped key cannot be imported"
    assert _refused(local, token, "/keys", wrapped[kind]) == said


def test_a_key_that_may_do_less_than_it_is_for_is_made_again(local, chaos, token):
    """SoftHSM shows objects without their attributes while their files change."""
    hidden = iter([Attribute.SIGN])

    def hide(original: Any, *words: int) -> int:
        """Hide it from who reads CKA_ID and usages together, once."""
        answer, (address, count) = int(original(*words)), words[2:4]
        array = (ctypes.c_ulong * (ATTRIBUTE_WORDS * count)).from_address(address)
        at = dict(zip(array[::ATTRIBUTE_WORDS], array[1::ATTRIBUTE_WORDS], strict=True))
        if Attribute.ID in at and at.get(Attribute.SIGN) and next(hidden, None):
            ctypes.memset(at[Attribute.SIGN], 0, 1)
        return answer

    chaos.replace_own("C_GetAttributeValue", hide)
    made = chaos.count_own("C_GenerateKeyPair")
    kid = local.create(**body_of("ES256"))["kid"]
    assert made["C_GenerateKeyPair"] == 2
    assert kid in map(str, token.inventory())
    assert local.delete(kid).status == 204


def test_each_attribute_is_asked_for_alone_where_one_that_is_unknown_spoils_the_rest(local, chaos):
    spoiled = 0

    def answer(original: Any, *words: int) -> int:
        nonlocal spoiled
        if words[3] > 1:
            spoiled += 1
            return ATTRIBUTE_TYPE_INVALID
        return int(original(*words))

    chaos.replace_own("C_GetAttributeValue", answer)
    for body in (body_of("ES256"), body_of("A256GCM")):
        assert local.delete(local.create(**body)["kid"]).status == 204
    assert spoiled


def test_a_kind_whose_unwrapped_keys_may_do_more_is_not_imported_wrapped(token, granting):
    """NSS lets an unwrapped RSA key sign, decrypt and unwrap, whatever was asked for."""
    opened = token._connection.token

    def is_rsa(template: Template) -> bool:
        key_type = int.from_bytes(template.get(Attribute.KEY_TYPE, b"\xff"), "little")
        return key_type == KeyType.RSA

    granting(is_rsa)
    found = found_imports(opened, ProofCache(None, opened.pool.token))
    known = opened.imports.find()
    assert found.ways.keys() == known.ways.keys() - {("RSA", None)}
    assert found.refusals["RSA", None] == "the token does not unwrap such keys"
