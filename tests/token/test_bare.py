"""Keys that are unwrapped to be held are made without python-pkcs11, and are the same."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from pkcs11 import Attribute, ObjectClass, PKCS11Error
from pkcs11.exceptions import ObjectHandleInvalid

from hsm import Hsm, KeyRef, KeySpec
from hsm.cryptoki.objects import PUBLIC
from hsm.cryptoki.session import Session
from hsm.life.token import Token
from hsm.storage.bare import Bare, Unwrapping
from hsm.storage.held_keys import Unwrapped
from tests.shared.injector import Injector
from tests.shared.waiting import until
from tests.token.test_wrapped_store import (
    A256GCM,
    CBC,
    ES256,
    USAGES,
    attributes,
    done,
    store_of,
    wrapped_ref,
)

READ = (
    *(Attribute.CLASS, Attribute.KEY_TYPE, Attribute.ALLOWED_MECHANISMS, Attribute.SIGN_RECOVER),
    *(Attribute.PRIVATE, Attribute.SENSITIVE, Attribute.EXTRACTABLE),
    *(Attribute.MODIFIABLE, Attribute.COPYABLE, *USAGES),
)
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
    """All that are secret; none if one has gone meanwhile: the token is looked at all the time."""
    with suppress(PKCS11Error):
        return [
            each
            for one in (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY)
            for each in session.find({Attribute.CLASS: one, Attribute.TOKEN: False})
        ]
    return []


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


def test_a_new_key_is_wrapped_by_one_call(token: Hsm, chaos: Injector):
    chaos.replace_own("C_WrapKey", lambda original, *words: int(original(*words)))
    kept = token.generate(wrapped_ref(ES256))
    assert chaos.calls["C_WrapKey"] == 1
    assert token.works(kept.ref)


def test_where_python_pkcs11_has_to_wrap_it_does(token: Hsm, made: Made, monkeypatch: Any):
    monkeypatch.setattr(Session, "wrap", lambda *_arguments: None)
    assert token.works(made(ES256))
