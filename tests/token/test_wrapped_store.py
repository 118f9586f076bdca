"""Keys that are kept wrapped: made in the token, encrypted there, and unwrapped to be used."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pkcs11 import Attribute, Mechanism, ObjectClass, PKCS11Error
from pkcs11.exceptions import (
    AttributeTypeInvalid,
    AttributeValueInvalid,
    DeviceMemory,
    ObjectHandleInvalid,
    SessionHandleInvalid,
    TemplateInconsistent,
)

from hsm import (
    ALGORITHMS,
    Blob,
    BrokenSeal,
    CryptoFailure,
    Hsm,
    KeyRef,
    KeySpec,
    KeyUnavailable,
    Storage,
)
from hsm.algorithms.kinds import RSA
from hsm.cryptoki.objects import PRIVATE, PUBLIC, objects_of
from hsm.cryptoki.session import Session
from hsm.life.token import Token
from hsm.life.work import Errand
from hsm.storage.bare import Packed
from hsm.storage.held_keys import HeldKeys
from hsm.storage.keks import Kek
from hsm.storage.restriction import restriction
from hsm.storage.wrapped_store import WrappedStore
from tests.shared import injector
from tests.shared.refs import new_ref
from tests.shared.waiting import until
from tests.token.test_attributes import GUARDS

pytestmark = pytest.mark.softhsm  # no other token of the tests has a key-encryption key

ES256 = KeySpec(kty="EC", alg="ES256", crv="P-256")
A256GCM = KeySpec(kty="oct", alg="A256GCM", bits=256)
CBC = KeySpec(kty="oct", alg="A128CBC-HS256", bits=256)
RS256 = KeySpec(kty="RSA", alg="RS256", bits=2048)
REFUSED = ("Ed25519", "Ed448", "X25519")
"""Curves whose private keys SoftHSM does not wrap."""

USAGES = (
    Attribute.ENCRYPT,
    Attribute.DECRYPT,
    Attribute.SIGN,
    Attribute.VERIFY,
    Attribute.WRAP,
    Attribute.UNWRAP,
    Attribute.DERIVE,
)
PAIRS = (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
"""What only keys of ours are: the look at the token makes a secret key now and then."""

SECRET = (ObjectClass.PRIVATE_KEY, ObjectClass.SECRET_KEY)


def kept_specs() -> Iterator[KeySpec]:
    for name, row in ALGORITHMS.items():
        for kind, curve in row.keys:
            bits = 2048 if kind is RSA else 8 * row.smallest_bytes or None
            crv = curve.crv if curve else None
            yield KeySpec(kty=kind.ktys[0], alg=name, crv=crv, bits=bits)


SPECS = {f"{spec.alg} {spec.crv or ''}".strip(): spec for spec in kept_specs()}


def wrapped_ref(spec: KeySpec, row: bytes = b"row") -> KeyRef:
    return replace(new_ref(spec, Storage.WRAPPED), row=row)


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    """One for all: to generate each takes the token long."""
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture
def made(token: Hsm) -> Callable[[KeySpec], KeyRef]:
    return lambda spec: token.generate(wrapped_ref(spec)).ref


@pytest.fixture
def alarms(token: Hsm, monkeypatch: Any, caplog: Any) -> list[list[str]]:
    """What was logged of seals each time that one was found broken."""
    alarms: list[list[str]] = []

    def alarm(_self: Any) -> None:
        alarms.append([message for message in caplog.messages if "seal" in message])

    monkeypatch.setattr(type(token._connection._settings.observer), "broke_seal", alarm)
    return alarms


def done(token: Hsm, verb: Callable[[Token, Session], Any]) -> Any:
    return token._connection.perform(Errand(verb=verb))


def number_of_objects(token: Hsm, *classes: ObjectClass) -> int:
    def count(_token: Token, session: Session) -> int:
        return sum(len(session.find({Attribute.CLASS: one})) for one in classes or PAIRS)

    return int(done(token, count))


def objects(session: Session, *classes: ObjectClass) -> list[Any]:
    """All of these; none if one has gone meanwhile: the token is looked at all the time."""
    with suppress(PKCS11Error):
        return [
            each
            for one in classes
            for each in session.find({Attribute.CLASS: one, Attribute.TOKEN: False})
        ]
    return []


def store_of(token: Token) -> WrappedStore:
    store = token.stores[Storage.WRAPPED]
    assert isinstance(store, WrappedStore)
    return store


def attributes(session: Session, found: Any, *names: Attribute) -> dict[Attribute, Any]:
    return {name: attribute(session, found, name) for name in names}


def attribute(session: Session, found: Any, name: Attribute) -> Any:
    try:
        return session.read(found, name)
    except AttributeTypeInvalid:  # as WRAP of a private key
        return None


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_what_can_be_kept_works_each_time_that_it_is_unwrapped(token, rsa_key, spec):
    offer = token.offers()[spec.alg]
    if offer.refusal(spec.crv) or token.keeping.keepable().refusals.get(("Edwards", spec.crv)):
        pytest.skip("the token has no such keys, or wraps none")
    if token.keeping.keepable().refusals.get(("Montgomery", spec.crv)):
        pytest.skip("the token wraps no such keys")
    token.keeping.require(spec)
    ref = wrapped_ref(spec)
    kept = token.import_key(ref, rsa_key) if spec.kty == "RSA" else token.generate(ref)
    for _ in range(2):
        assert token.works(kept.ref)
        assert token.works(kept.ref)  # it is unwrapped still
        token.keeping.forget([ref.kid])
    assert ref.kid not in token.keeping.held()


def test_what_the_token_does_not_wrap_is_refused_with_its_reason(token):
    refused = list(token.keeping.keepable().refused())
    assert {(one.kty, one.crv) for one in refused} == {("OKP", crv) for crv in REFUSED}
    assert {one.reason for one in refused} == {"the token answers KeyNotWrappable"}


def test_the_public_half_is_that_of_the_key(token, made):
    kept = token.generate(wrapped_ref(ES256))
    token.keeping.forget([kept.ref.kid])
    signature = token.sign(kept.ref, "ES256", b"data")
    assert token.verify(kept.ref, "ES256", b"data", signature)
    assert isinstance(kept.public, ec.EllipticCurvePublicKey)

    def public(token: Token, session: Session) -> Any:
        with store_of(token).lent(session, kept.ref, [PUBLIC]) as keys:
            return keys.public.numbers

    assert done(token, public).public_numbers() == kept.public.public_numbers()


@pytest.mark.parametrize("spec", [ES256, A256GCM, CBC], ids=lambda spec: spec.alg)
def test_nothing_is_left_on_the_token_when_a_key_is_made(token, made, spec):
    pairs, secrets = number_of_objects(token), number_of_objects(token, ObjectClass.SECRET_KEY)
    ref = made(spec)
    assert number_of_objects(token) == pairs
    until(lambda: number_of_objects(token, ObjectClass.SECRET_KEY) <= secrets)
    assert ref.kid not in token.inventory()


@pytest.mark.parametrize("spec", [ES256, RS256, A256GCM, CBC], ids=lambda spec: spec.alg)
def test_only_what_is_being_wrapped_is_extractable(token, monkeypatch, rsa_key, spec):
    seen: list[dict[Attribute, Any]] = []
    wrapped = Kek.wrapped

    def spy(kek: Kek, key: Any) -> bytes:
        by_handle = {each.handle: each for each in until(lambda: objects(key.lent, *SECRET))}
        seen.append(attributes(key.lent, by_handle[key.handle], *GUARDS))
        return wrapped(kek, key)

    monkeypatch.setattr(Kek, "wrapped", spy)
    ref = wrapped_ref(spec)
    ref = (token.import_key(ref, rsa_key) if spec is RS256 else token.generate(ref)).ref
    session_object = {
        Attribute.TOKEN: False,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.MODIFIABLE: False,
        Attribute.COPYABLE: False,
    }
    secrets = [each for each in objects_of(spec) if each != PUBLIC]
    assert seen == [session_object | {Attribute.EXTRACTABLE: True}] * len(secrets)

    def unwrapped(token: Token, session: Session) -> None:
        for name, found in store_of(token).unwrapped(session, ref).objects.items():
            if name != PUBLIC:
                guards = attributes(session, found, *GUARDS)
                assert guards == session_object | {Attribute.EXTRACTABLE: False}
            session.destroy(found)

    done(token, unwrapped)


def test_what_is_unwrapped_does_what_its_algorithm_needs_and_no_more(token, made):
    ref = made(ES256)

    def usages(token: Token, session: Session) -> dict[Any, Any]:
        found = {}
        for name, each in store_of(token).unwrapped(session, ref).objects.items():
            uses = attributes(session, each, *USAGES)
            allowed = session.read(each, Attribute.ALLOWED_MECHANISMS)
            found[name] = {use for use, is_set in uses.items() if is_set}, allowed
            session.destroy(each)
        return found

    assert done(token, usages) == {
        PRIVATE: ({Attribute.SIGN}, {Mechanism.ECDSA}),
        PUBLIC: ({Attribute.VERIFY}, {Mechanism.ECDSA}),
    }


def test_the_key_encryption_key_wraps_and_the_other_seals_and_neither_leaves(token):
    def look(token: Token, session: Session) -> dict[str, Any]:
        found = {}
        for name in ("kek", "seal"):
            template = {
                Attribute.CLASS: ObjectClass.SECRET_KEY,
                Attribute.LABEL: f"jose-hsm:{name}",
            }
            (each,) = session.find(template)
            guards = attributes(session, each, *GUARDS)
            uses = attributes(session, each, *USAGES)
            allowed = session.read(each, Attribute.ALLOWED_MECHANISMS)
            found[name] = guards, {use for use in USAGES if uses[use]}, allowed
        return found

    guards = {
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SENSITIVE: True,
        Attribute.EXTRACTABLE: False,
        Attribute.MODIFIABLE: False,
        Attribute.COPYABLE: False,
    }
    assert done(token, look) == {
        "kek": (guards, {Attribute.WRAP, Attribute.UNWRAP}, {Mechanism.AES_KEY_WRAP_PAD}),
        "seal": (guards, {Attribute.SIGN}, {Mechanism.SHA256_HMAC}),
    }


@pytest.mark.parametrize("extractable", [False, True])
def test_the_token_unwraps_no_key_that_can_be_read_or_stays(token, made, extractable):
    ref = made(A256GCM)

    def unwrap(token: Token, session: Session) -> None:
        kek = store_of(token).keks[blob_of(ref).kek]
        good = token.templates.unwrapped(A256GCM)
        wrapped = blob_of(ref).octets[2:]
        session.destroy(kek.unwrapped(session, wrapped, **good))
        guards = good["template"] | {Attribute.EXTRACTABLE: extractable}
        for bad in (
            {"template": guards | {Attribute.SENSITIVE: False}},
            {"template": guards | {Attribute.PRIVATE: False}},
            {"template": guards, "store": True},
        ):
            with pytest.raises(TemplateInconsistent):
                kek.unwrapped(session, wrapped, **good | bad)

    done(token, unwrap)


NO_TEMPLATES = {
    "refused": AttributeTypeInvalid,
    "refused as a value": AttributeValueInvalid,
}


@pytest.mark.parametrize("error", NO_TEMPLATES.values(), ids=NO_TEMPLATES)
def test_where_a_token_takes_no_template_of_what_it_unwraps_there_is_none(
    token, monkeypatch, error
):
    generate = Session.generate_key

    def refuse(self: Session, *arguments: Any, **named: Any) -> Any:
        if Attribute.UNWRAP_TEMPLATE in named["template"]:
            raise error
        return generate(self, *arguments, **named)

    monkeypatch.setattr(Session, "generate_key", refuse)
    assert done(token, found_restriction) == {}


def test_what_a_token_takes_and_does_not_hold_to_is_left_out(token, monkeypatch):
    monkeypatch.setattr(Packed, "__bytes__", lambda _self: b"")
    assert done(token, found_restriction) == {}


def test_a_token_in_trouble_says_nothing_of_what_it_takes(token, monkeypatch):
    def fail(*_arguments: Any, **_named: Any) -> Any:
        raise DeviceMemory

    monkeypatch.setattr(Session, "generate_key", fail)

    def find(token: Token, session: Session) -> None:
        with pytest.raises(DeviceMemory):
            found_restriction(token, session)

    done(token, find)


def found_restriction(token: Token, session: Session) -> Any:
    return restriction(session, token.templates, Mechanism.AES_KEY_WRAP_PAD)


def other(octets: bytes) -> bytes:
    """Return octets of which one bit has been changed."""
    return octets[:-1] + bytes([octets[-1] ^ 1])


CHANGES: dict[str, Callable[[KeyRef, KeyRef], KeyRef]] = {
    "row": lambda ref, _: replace(ref, row=b"another row"),
    "key": lambda ref, _: changed(ref, octets=other(blob_of(ref).octets)),
    "seal": lambda ref, _: changed(ref, seal=other(blob_of(ref).seal)),
    "no seal": lambda ref, _: changed(ref, seal=b""),
    "blob of another": lambda ref, another: replace(ref, blob=another.blob),
    "no blob": lambda ref, _: replace(ref, blob=None),
    "a byte moved": lambda ref, _: changed(
        replace(ref, row=ref.row[:-1]), octets=ref.row[-1:] + blob_of(ref).octets
    ),
}


def blob_of(ref: KeyRef) -> Blob:
    assert ref.blob is not None
    return ref.blob


def changed(ref: KeyRef, **members: Any) -> KeyRef:
    return replace(ref, blob=replace(blob_of(ref), **members))


@pytest.mark.parametrize("is_unwrapped", [False, True], ids=["cold", "unwrapped"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_was_changed_behind_our_back_is_never_used(token, made, alarms, change, is_unwrapped):
    ref, another = made(ES256), token.generate(wrapped_ref(ES256, b"that of another")).ref
    if is_unwrapped:
        token.sign(ref, "ES256", b"data")
    with pytest.raises(BrokenSeal):
        token.sign(change(ref, another), "ES256", b"data")
    assert alarms == [[f"the row of key {ref.kid} was changed by others: its seal is broken"]]
    assert token.sign(ref, "ES256", b"data")  # as it was, it is used


def test_a_key_under_a_key_that_the_token_lacks_is_not_available(token, made):
    ref = made(ES256)
    lost = replace(ref, blob=replace(blob_of(ref), kek=uuid4()))
    with pytest.raises(KeyUnavailable, match="lacks the key-encryption key"):
        token.sign(lost, "ES256", b"data")


def test_a_legal_change_gets_a_seal_of_its_own_and_a_changed_row_does_not(token, made):
    ref = made(ES256)
    again = replace(ref, row=b"new", blob=token.keeping.resealed(ref, b"new"))
    assert token.sign(again, "ES256", b"data")
    with pytest.raises(BrokenSeal):
        token.sign(replace(ref, row=b"new"), "ES256", b"data")
    with pytest.raises(BrokenSeal):
        token.keeping.resealed(replace(ref, row=b"changed"), b"new")


def test_a_key_does_only_what_it_was_made_for(token, rsa_key):
    ref = token.import_key(wrapped_ref(RS256), rsa_key).ref
    with pytest.raises(CryptoFailure):
        token.sign(ref, "PS256", b"data")


# --- Handles ---


class Small:
    """A store of the token of this process that has room for two unwrapped keys."""

    def __init__(self, token: Token) -> None:
        own = store_of(token)
        self.held = HeldKeys(token.pool.open_session, 2)
        self.store = WrappedStore(token.templates, token.canary, own.keks, self.held, own._observer)

    def close(self) -> None:
        self.held.forget(self.held.kids())
        if self.held._session is not None:
            self.held._session.close()


@pytest.fixture
def small(token: Hsm) -> Iterator[Small]:
    small = Small(token._connection.token)
    yield small
    small.close()


def private_objects(session: Session) -> int:
    return len(session.find({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))


def public_objects(session: Session) -> int:
    return len(session.find({Attribute.CLASS: ObjectClass.PUBLIC_KEY}))


class Noting:
    """``lock``; ``waits`` has by when each thread had to be back that may have waited for it."""

    def __init__(self, lock: threading.Lock, deadlines: dict[int, Any]) -> None:
        self._lock = lock
        self._deadlines = deadlines
        self.waits: list[Any] = []

    def __enter__(self) -> None:
        self.waits.append(self._deadlines.get(threading.get_ident()))
        self._lock.acquire()

    def __exit__(self, *_error: object) -> None:
        self._lock.release()


def test_who_waits_until_others_have_unwrapped_is_not_overdue(token, made, monkeypatch):
    """All are unwrapped on one session, one after the other, and each may take its time."""
    connection, ref = token._connection, made(ES256)
    held = store_of(connection.token)._held
    noting = Noting(held._session_lock, connection._watchdog._deadlines)
    monkeypatch.setattr(held, "_session_lock", noting)
    assert token.sign(ref, "ES256", b"data")
    assert set(noting.waits) == {None}


def test_the_least_recently_used_is_wiped(token, made, small):
    refs = [made(ES256) for _ in range(3)]

    def use(_token: Token, session: Session) -> int:
        before = private_objects(session)
        for number in (0, 1, 0, 2):
            with small.store.lent(session, refs[number], [PRIVATE]):
                pass
        return private_objects(session) - before

    assert done(token, use) == 2
    assert small.held.kids() == {refs[0].kid, refs[2].kid}


def test_the_public_half_is_an_object_from_its_first_use_until_it_is_wiped(token, made, small):
    ref = made(ES256)

    def use(_token: Token, session: Session) -> list[int]:
        before, seen = public_objects(session), []
        with small.store.lent(session, ref, [PRIVATE, PUBLIC]) as keys:
            signature = keys.private.sign(bytes(32), mechanism=Mechanism.ECDSA)
            assert keys.public.numbers
            seen.append(public_objects(session))
            for _ in range(2):
                assert keys.public.verify(bytes(32), signature, mechanism=Mechanism.ECDSA)
                seen.append(public_objects(session))
        small.store.forget([ref.kid])
        return [number - before for number in (*seen, public_objects(session))]

    assert done(token, use) == [0, 1, 1, 0]


def test_what_is_unwrapped_has_no_classes_of_its_own(token, made):
    refs = [made(ES256), made(A256GCM)]

    def classes(token: Token, session: Session) -> set[type]:
        found = set()
        for ref in refs:
            for each in store_of(token).unwrapped(session, ref).objects.values():
                found.add(type(each))
                session.destroy(each)
        return found

    assert len(done(token, classes)) == 1


def test_the_public_half_is_not_made_on_a_session_that_has_ended(token, made, small):
    ref = made(ES256)

    def use(_token: Token, session: Session) -> None:
        with small.store.lent(session, ref, [PUBLIC]) as keys:
            small.held._session.close()
            small.held.keep_alive()
            with pytest.raises(SessionHandleInvalid):
                keys.public.verify(bytes(32), bytes(64), mechanism=Mechanism.ECDSA)

    done(token, use)
    assert not small.held.kids()


@pytest.mark.parametrize("end", ["evicted", "forgotten", "destroyed"])
def test_a_key_in_use_is_wiped_by_the_last_who_uses_it(token, made, small, end):
    refs = [made(ES256) for _ in range(3)]

    def use(_token: Token, session: Session) -> tuple[int, int, bytes]:
        before = private_objects(session)
        with ExitStack() as stack:
            lent = small.store.lent(session, refs[0], [PRIVATE])
            keys = stack.enter_context(lent)
            if end == "evicted":
                for ref in refs[1:]:
                    with small.store.lent(session, ref, [PRIVATE]):
                        pass
            elif end == "forgotten":
                small.store.forget([refs[0].kid])
            else:
                small.store.destroy(session, refs[0])
            assert refs[0].kid not in small.held.kids()
            signature = keys.private.sign(bytes(32), mechanism=Mechanism.ECDSA)
            during = private_objects(session) - before - len(small.held.kids())
        return during, private_objects(session) - before - len(small.held.kids()), signature

    during, after, signature = done(token, use)
    assert (during, after) == (1, 0)
    assert len(signature) == 64


def test_threads_that_want_the_same_key_leave_one(token, made, small):
    refs = [made(ES256) for _ in range(4)]
    together = threading.Barrier(4)

    def use(number: int) -> None:
        def sign(_token: Token, session: Session) -> None:
            for turn in range(20):
                ref = refs[(number + turn) % 4]
                with small.store.lent(session, ref, [PRIVATE, PUBLIC]) as keys:
                    signature = keys.private.sign(bytes(32), mechanism=Mechanism.ECDSA)
                    assert keys.public.verify(bytes(32), signature, mechanism=Mechanism.ECDSA)

        together.wait()
        done(token, sign)

    before = number_of_objects(token)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(use, range(4)))
    assert len(small.held.kids()) == 2
    assert number_of_objects(token) == before + 4  # two keys, each with its public half


def test_a_session_that_has_ended_is_followed_by_another(token, made):
    ref = made(ES256)
    token.sign(ref, "ES256", b"data")
    held = store_of(token._connection.token)._held
    assert held._session is not None
    held._session.close()  # as some tokens do with idle ones
    assert token.sign(ref, "ES256", b"data")
    assert held.kids() == {ref.kid}


def test_a_session_that_has_ended_is_noticed_before_it_is_used(token, made):
    ref = made(ES256)
    token.sign(ref, "ES256", b"data")
    held = store_of(token._connection.token)._held
    assert held._session is not None
    held._session.close()
    token._connection.suspect()
    until(lambda: not held.kids())
    assert token.sign(ref, "ES256", b"data")


@pytest.mark.parametrize(
    "fault",
    [
        ("C_Sign", injector.FUNCTION_FAILED, 1),  # of the seal, which stays an active operation
        ("C_UnwrapKey", injector.OPERATION_ACTIVE, 2),  # as AWS CloudHSM says that it is busy
    ],
)
def test_a_failure_leaves_the_session_of_what_is_unwrapped(token, made, chaos, fault):
    function, value, times = fault
    refs = [made(ES256) for _ in range(2)]
    for ref in refs:
        token.sign(ref, "ES256", b"data")
    held, before = store_of(token._connection.token)._held, number_of_objects(token)
    session = held._session
    held.forget([refs[0].kid])
    chaos.fail_own(function, value, times=times)
    assert token.sign(refs[0], "ES256", b"data")
    chaos.heal()
    assert held._session is session
    assert held.kids() >= {ref.kid for ref in refs}
    assert number_of_objects(token) == before


def test_what_is_not_wiped_at_once_is_wiped_when_the_session_is_looked_at(token, made, chaos):
    ref = made(ES256)
    before = number_of_objects(token)
    token.sign(ref, "ES256", b"data")
    held = store_of(token._connection.token)._held
    chaos.fail_own("C_DestroyObject", injector.GENERAL_ERROR, times=1)
    held.forget([ref.kid])
    chaos.heal()
    held.keep_alive()
    assert number_of_objects(token) == before


def test_what_cannot_be_unwrapped_leaves_nothing(token, made, small, monkeypatch):
    ref, unwrapped = made(CBC), Kek.held
    seen: list[Any] = []

    def fail(*arguments: Any, **named: Any) -> Any:
        if seen:
            raise PKCS11Error
        seen.append(unwrapped(*arguments, **named))
        return seen[0]

    monkeypatch.setattr(Kek, "held", fail)

    def use(_token: Token, session: Session) -> None:
        with pytest.raises(PKCS11Error), small.store.lent(session, ref, objects_of(CBC)):
            pass
        with pytest.raises(ObjectHandleInvalid):
            seen[0].destroy()

    done(token, use)
    assert small.held.kids() == frozenset()


def test_a_public_half_that_is_not_made_leaves_no_private_one(token, made, small, monkeypatch):
    ref = made(ES256)

    def fail(*_arguments: Any) -> Any:
        raise PKCS11Error

    monkeypatch.setattr(WrappedStore, "_public", fail)

    def use(_token: Token, session: Session) -> int:
        before = private_objects(session)
        with pytest.raises(PKCS11Error):
            small.store.unwrapped(session, ref)
        return private_objects(session) - before

    assert done(token, use) == 0
