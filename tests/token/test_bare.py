"""Keys that are made without python-pkcs11, new ones and held ones, are the same as with it."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pkcs11 import Attribute, ObjectClass, PKCS11Error
from pkcs11.exceptions import ObjectHandleInvalid

from hsm import Hsm, KeyRef, KeySpec
from hsm.cryptoki.keys import Keys
from hsm.cryptoki.material import read_public
from hsm.cryptoki.objects import PUBLIC
from hsm.cryptoki.session import Session
from hsm.life.token import Token
from hsm.operations.session_keys import SessionKeys
from hsm.storage.bare import Bare, Unwrapping
from hsm.storage.bare_pairs import BarePairs
from hsm.storage.held_keys import Unwrapped
from tests.shared.injector import NAMES, Injector
from tests.shared.waiting import until
from tests.token.test_wrapped_store import (
    A256GCM,
    CBC,
    ES256,
    SECRET,
    USAGES,
    attributes,
    done,
    number_of_objects,
    objects,
    store_of,
    wrapped_ref,
)

READ = (
    *(Attribute.CLASS, Attribute.KEY_TYPE, Attribute.ALLOWED_MECHANISMS, Attribute.SIGN_RECOVER),
    *(Attribute.PRIVATE, Attribute.SENSITIVE, Attribute.EXTRACTABLE),
    *(Attribute.MODIFIABLE, Attribute.COPYABLE, *USAGES),
)
BOTH = (
    *(Attribute.CLASS, Attribute.KEY_TYPE, Attribute.KEY_GEN_MECHANISM, Attribute.LOCAL),
    *(Attribute.EC_PARAMS, Attribute.TOKEN, Attribute.PRIVATE, Attribute.ALLOWED_MECHANISMS),
    *(Attribute.MODIFIABLE, Attribute.COPYABLE, Attribute.ID, Attribute.LABEL, Attribute.DERIVE),
)
OF_PUBLIC = (*BOTH, Attribute.ENCRYPT, Attribute.VERIFY, Attribute.VERIFY_RECOVER, Attribute.WRAP)
OF_PRIVATE = (
    *(*BOTH, Attribute.DECRYPT, Attribute.SIGN, Attribute.SIGN_RECOVER, Attribute.UNWRAP),
    *(Attribute.SENSITIVE, Attribute.ALWAYS_SENSITIVE),
    *(Attribute.EXTRACTABLE, Attribute.NEVER_EXTRACTABLE),
)
PAIRS = {
    "P-256": ES256,
    "P-521": KeySpec(kty="EC", alg="ES512", crv="P-521", signs_digests=True),
    "agrees": KeySpec(kty="EC", alg="ECDH-ES", crv="P-256"),
    "does all": KeySpec(kty="EC", crv="P-384"),
}
Made = Callable[[KeySpec], KeyRef]


@pytest.fixture
def made(token: Hsm) -> Made:
    return lambda spec: token.generate(wrapped_ref(spec)).ref


@pytest.mark.parametrize("spec", [ES256, A256GCM, CBC], ids=lambda spec: spec.alg)
def test_what_is_held_has_the_attributes_of_what_can_be_read(token: Hsm, made: Made, spec: KeySpec):
    ref = made(spec)

    def seen(token: Token, session: Session, *, is_held: bool) -> Sequence[Any]:
        unwrapped = store_of(token).unwrapped(session, ref, is_held=is_held)
        found = read(session, unwrapped)
        assert {isinstance(each, Bare) for each in secret_objects(unwrapped)} == {is_held}
        for each in unwrapped.objects.values():
            session.destroy(each)
        return found

    held = done(token, partial(seen, is_held=True))
    shown = done(token, partial(seen, is_held=False))
    assert held == shown
    assert len(held) == (2 if spec is CBC else 1)


def secret_objects(unwrapped: Unwrapped) -> list[Any]:
    return [each for name, each in unwrapped.objects.items() if name != PUBLIC]


def read(session: Session, unwrapped: Unwrapped) -> list[dict[Attribute, Any]]:
    """What the token says of objects of which only their handles are known."""
    found = until(lambda: session_objects(session))
    by_handle: dict[Any, Any] = {each.handle: each for each in found}
    objects = [by_handle[each.handle] for each in secret_objects(unwrapped)]
    return [attributes(session, each, *READ) for each in objects]


def session_objects(session: Session) -> list[Any]:
    return objects(session, *SECRET)


def test_where_python_pkcs11_has_to_do_it_it_does(token: Hsm, made: Made, monkeypatch: Any):
    monkeypatch.setattr(Session, "unwrap", lambda *_arguments, **_named: None)
    ref = made(ES256)
    assert token.sign(ref, "ES256", b"data")
    token.keeping.forget([ref.kid])
    assert ref.kid not in token.keeping.held()


def test_python_pkcs11_says_why_the_token_refuses(token: Hsm):
    def refused(token: Token, session: Session) -> list[type[PKCS11Error]]:
        kek = next(iter(store_of(token).keks.values()))
        its = token.templates.unwrapped(ES256)
        with pytest.raises(PKCS11Error) as held:
            kek.held(session, bytes(40), Unwrapping.of(its))
        with pytest.raises(PKCS11Error) as shown:
            kek.unwrapped(session, bytes(40), **its)
        return [held.type, shown.type]

    of_held, of_shown = done(token, refused)
    assert of_held is of_shown


def test_what_is_gone_cannot_be_destroyed_again(token: Hsm, made: Made):
    ref = made(A256GCM)

    def destroyed_twice(token: Token, session: Session) -> None:
        [each] = store_of(token).unwrapped(session, ref, is_held=True).objects.values()
        session.destroy(each)
        with pytest.raises(ObjectHandleInvalid):
            session.destroy(each)

    done(token, destroyed_twice)


def test_a_new_key_takes_the_token_seven_calls(token: Hsm, chaos: Injector):
    calls: list[str] = []

    def note(name: str, original: Callable[..., int], *words: int) -> int:
        calls.append(name)
        return int(original(*words))

    def make(token: Token, session: Session) -> KeyRef:
        for name in set(NAMES) - {"C_Initialize", "C_Finalize", "C_GetFunctionList"}:
            chaos.replace_own(name, partial(note, name))
        return store_of(token).make(session, wrapped_ref(ES256)).ref

    ref = done(token, make)
    chaos.heal()
    assert calls == [
        *("C_GenerateKeyPair", "C_GetAttributeValue", "C_WrapKey", "C_SignInit", "C_Sign"),
        *("C_DestroyObject", "C_DestroyObject"),
    ]
    assert token.works(ref)


def test_where_python_pkcs11_has_to_wrap_it_does(token: Hsm, made: Made, monkeypatch: Any):
    monkeypatch.setattr(Session, "wrap", lambda *_arguments: None)
    assert token.works(made(ES256))


@pytest.mark.parametrize("spec", PAIRS.values(), ids=PAIRS)
def test_a_new_pair_has_the_attributes_of_one_that_is_read_back(token: Hsm, spec: KeySpec):
    def seen(token: Token, session: Session) -> list[Any]:
        makes = SessionKeys(replace(token.templates, to_be_wrapped=True), token.canary)
        made = BarePairs(makes).generated(session, spec), makes.generated_pair(session, spec, None)
        return [read_pair(session, pair) for pair in made]

    (bare, *its), (read_back, *theirs) = done(token, seen)
    assert its == theirs
    assert bare == {Bare}
    assert bare.isdisjoint(read_back)


def read_pair(session: Session, pair: AbstractContextManager[Keys]) -> list[Any]:
    """What has made the halves, and what the token says of them; its numbers are the right ones."""
    with pair as keys:
        halves: list[Any] = [keys.public, keys.private]
        by_handle: dict[Any, Any] = {each.handle: each for each in until(lambda: pairs(session))}
        public, private = (by_handle[each.handle] for each in halves)
        assert read_public(public) == keys.public.numbers
        return [
            {type(each._made) for each in halves},
            attributes(session, public, *OF_PUBLIC),
            attributes(session, private, *OF_PRIVATE),
        ]


def pairs(session: Session) -> list[Any]:
    return objects(session, ObjectClass.PUBLIC_KEY, ObjectClass.PRIVATE_KEY)


@pytest.mark.parametrize("point", [None, b"", b"\x04\x01\x04"], ids=["none", "empty", "short"])
def test_what_has_no_point_python_pkcs11_makes(token: Hsm, monkeypatch: Any, point: bytes | None):
    before = number_of_objects(token)
    monkeypatch.setattr(Session, "read_point", lambda *_arguments: point)
    kept = token.generate(wrapped_ref(ES256))
    assert isinstance(kept.public, EllipticCurvePublicKey)
    assert number_of_objects(token) == before
    assert token.works(kept.ref)


def test_where_python_pkcs11_has_to_make_a_pair_it_does(token: Hsm, made: Made, monkeypatch: Any):
    monkeypatch.setattr(Session, "generate_handles", lambda *_arguments, **_named: None)
    assert token.works(made(ES256))


def test_a_seal_is_the_same_where_python_pkcs11_has_to_make_it(token: Hsm, monkeypatch: Any):
    def sealed(token: Token, session: Session) -> tuple[bytes, bytes]:
        kek = next(iter(store_of(token).keks.values()))
        by_one_call = kek.seal(session, b"row", b"octets")
        monkeypatch.setattr(Session, "repeated", lambda *_arguments, **_named: None)
        return by_one_call, kek.seal(session, b"row", b"octets")

    one, other = done(token, sealed)
    assert one == other
    assert len(one) == hashlib.sha256().digest_size
