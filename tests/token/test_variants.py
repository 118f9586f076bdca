"""What a token is like is found out: by stored objects, by class, and no length is believed."""

import ctypes
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pkcs11 import Attribute
from pkcs11.exceptions import DeviceRemoved

from hsm import Hsm
from hsm.cryptoki.attributes import OPTIONAL, STORED_TRIAL, Templates
from hsm.errors import TokenUnavailable
from hsm.life import variants
from hsm.life.proof_cache import ProofCache
from hsm.life.variants import found_templates
from hsm.life.work import Errand
from tests.shared import injector
from tests.shared.injector import Injector
from tests.shared.refs import new_ref
from tests.token.test_connection import AES

TEMPLATE_INCONSISTENT = 0xD1
MECHANISM_INVALID = 0x70
GENERAL_ERROR = 0x05
DEVICE_MEMORY = 0x31
ATTRIBUTE_WORDS = 3
STRICT_TRIES = 12
"""How often a pair that does not decrypt is tried: whole, and in three ways without what it may."""
Template = dict[int, bytes]
Refuses = Callable[[Template], bool]


def template_at(address: int, count: int) -> Template:
    """Return an array of CK_ATTRIBUTE, by type."""
    words = (ctypes.c_ulong * (ATTRIBUTE_WORDS * count)).from_address(address)
    fields = zip(*[iter(words)] * ATTRIBUTE_WORDS, strict=True)
    return {name: ctypes.string_at(value, length) for name, value, length in fields}


def is_true(template: Template, attribute: Attribute) -> bool:
    return template.get(attribute) == b"\1"


@pytest.fixture
def refusing(chaos: Injector) -> Callable[..., None]:
    """Have templates refused: of secret keys, of public and of private halves."""

    def refuse(
        secret: Refuses = lambda _: False,
        public: Refuses = lambda _: False,
        private: Refuses = lambda _: False,
        value: int = TEMPLATE_INCONSISTENT,
    ) -> None:
        def generate_key(original: Any, *words: int) -> int:
            return value if secret(template_at(*words[2:4])) else int(original(*words))

        def generate_pair(original: Any, *words: int) -> int:
            is_refused = public(template_at(*words[2:4])) or private(template_at(*words[4:6]))
            return value if is_refused else int(original(*words))

        chaos.replace("C_GenerateKey", generate_key)
        chaos.replace("C_GenerateKeyPair", generate_pair)

    return refuse


@pytest.fixture
def found(token: Hsm) -> Iterator[Callable[[], Templates]]:
    """What is found on the token of this process; nothing is left of it."""
    pool = token._connection.token.pool
    yield lambda: found_templates(pool, ProofCache(None, pool.token))
    left = Errand(verb=lambda _, session: session.find({Attribute.ID: STORED_TRIAL["id"]}))
    assert token._connection.perform(left) == []


def test_softhsm_takes_all(found):
    assert found() == Templates()


@pytest.mark.parametrize("value", [TEMPLATE_INCONSISTENT, GENERAL_ERROR], ids=hex)
def test_what_is_taken_on_session_objects_only_is_left_out_of_that_class(refusing, found, value):
    lacking = {Attribute.ALLOWED_MECHANISMS, Attribute.COPYABLE}
    refusing(
        secret=lambda template: (
            is_true(template, Attribute.TOKEN) and bool(lacking & template.keys())
        ),
        value=value,
    )
    assert found() == Templates(of_secrets=frozenset(OPTIONAL) - lacking)


def test_pairs_have_attributes_of_their_own(refusing, found):
    refusing(private=lambda template: Attribute.SIGN_RECOVER in template)
    assert found() == Templates(of_pairs=frozenset(OPTIONAL) - {Attribute.SIGN_RECOVER})


def test_public_keys_are_private_objects_where_the_token_wants_that(refusing, found):
    refusing(public=lambda template: not is_true(template, Attribute.PRIVATE))
    assert found() == Templates(public_is_private=True)


def test_pairs_decrypt_where_the_token_makes_no_others(refusing, found):
    refusing(private=lambda template: not is_true(template, Attribute.DECRYPT), value=GENERAL_ERROR)
    assert found() == Templates(pairs_decrypt=True, of_pairs=frozenset(OPTIONAL))


def test_pairs_do_not_decrypt_where_the_token_was_only_in_trouble(refusing, found):
    """It refuses strict templates while they are tried, and takes them afterwards."""
    strict = itertools.count()
    refusing(
        private=lambda template: (
            not is_true(template, Attribute.DECRYPT) and next(strict) < STRICT_TRIES
        ),
        value=GENERAL_ERROR,
    )
    with pytest.raises(TokenUnavailable):
        found()


def test_nothing_is_believed_of_a_token_that_is_busy_for_a_moment(chaos, found, monkeypatch):
    monkeypatch.setattr(variants, "_PAUSE_SECONDS", 0.0)
    chaos.fail_own("C_GenerateKeyPair", DEVICE_MEMORY, times=6)
    assert found() == Templates()


def test_nothing_is_believed_of_a_token_that_is_gone(chaos, found, monkeypatch):
    monkeypatch.setattr(variants, "_PAUSE_SECONDS", 0.0)
    chaos.fail_own("C_GenerateKeyPair", injector.DEVICE_REMOVED, times=8)
    with pytest.raises(DeviceRemoved):
        found()


def test_pairs_are_stored_to_be_tried_where_the_token_makes_no_session_objects(refusing, found):
    refusing(private=lambda template: not is_true(template, Attribute.TOKEN))
    assert found() == Templates(stores_trials=True)


def test_public_keys_do_not_say_whether_they_are_private_where_nobody_may(refusing, found):
    refusing(public=lambda template: Attribute.PRIVATE in template)
    assert found() == Templates(public_is_private=None)


def test_a_token_without_elliptic_curves_tries_with_a_pair_that_it_has(refusing, found):
    refusing(
        public=lambda template: (
            Attribute.EC_PARAMS in template or Attribute.VERIFY_RECOVER in template
        ),
        value=MECHANISM_INVALID,
    )
    assert found() == Templates(of_pairs=frozenset(OPTIONAL) - {Attribute.VERIFY_RECOVER})


def test_what_others_have_found_is_not_tried_again(chaos, token, tmp_path):
    pool, totals = token._connection.token.pool, []
    for _ in range(2):
        made = chaos.count_own("C_GenerateKey", "C_GenerateKeyPair")
        proof_cache = ProofCache(tmp_path, pool.token)
        with proof_cache.shared(believe=True):
            assert found_templates(pool, proof_cache) == Templates()
        totals.append(made.total())
    assert totals[0] > 0 == totals[1]


def test_a_key_is_encrypted_with_though_the_token_says_a_length_without_the_tag(token, chaos):
    key = new_ref(AES)
    token.generate(key)
    questions = []

    def answer_like_nss(original: Any, *words: int) -> int:
        if words[3]:
            return int(original(*words))
        questions.append(words)
        return injector.OPERATION_ACTIVE

    chaos.replace("C_Encrypt", answer_like_nss)
    encrypted = token.encrypt(key, "dir", "A256GCM", b"plain", lambda _: b"aad")
    assert token.decrypt(key, "dir", "A256GCM", b"", encrypted.sealed, b"aad") == b"plain"
    assert questions == []
    chaos.heal()
    token.destroy(key)
