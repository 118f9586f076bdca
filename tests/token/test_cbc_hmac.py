"""AES-CBC with HMAC (RFC 7518 §5.2): one key of two objects, and nothing opened that is not whole.

What all ``enc`` have in common is tested where they are compared: sizes, interoperation, binding,
attributes.
"""

# ruff: noqa: PLR0913, PLR0917  # fixtures

import ctypes
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import jwcrypto.jwk
import pytest
from pkcs11 import Attribute, KeyType, ObjectClass

import hsm
from app.errors import RegistryUnavailable
from app.registry import Registry
from app.service import service_of
from hsm import DecryptionFailed, Hsm, KeyRef, KeySpec, TokenUnavailable, WrongResult
from hsm.cryptoki.attributes import Templates
from hsm.life.work import Errand
from tests.shared import injector
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.injector import Injector
from tests.shared.refs import new_ref
from tests.shared.sealing import CBC_HMAC, CEK_BYTES, TAG_BYTES, seal, seal_padded, tag
from tests.shared.vector_counts import RecordProperty, count
from tests.shared.waiting import until
from tests.token.test_key_management import (
    MESSAGE,
    Case,
    decrypt_in_node,
    encrypt_in_node,
    encrypted,
)
from tests.token.test_known_answers import MANAGEMENT_FILE

FAILED = b'{"error":"decryption_failed","description":"Decryption failed"}\n'
NOT_FOUND = (404, "not_found")
UNAVAILABLE = (503, "unavailable")
IV = bytes(range(16))
AAD = b"the header"
DEVICE_REMOVED = 0x32

every_enc = pytest.mark.parametrize("enc", CBC_HMAC)


def spec_of(enc: str) -> KeySpec:
    return KeySpec(kty="oct", alg=enc, bits=8 * CEK_BYTES[enc])


@pytest.fixture
def imported(token: Hsm) -> Iterator[Callable[[str, bytes], KeyRef]]:
    """Put a CEK on the token for the time of a test."""
    made: list[KeyRef] = []

    def put(enc: str, cek: bytes) -> KeyRef:
        made.append(new_ref(spec_of(enc)))
        token.import_key(made[-1], cek)
        return made[-1]

    yield put
    for ref in made:
        token.destroy(ref)


def objects(token: Hsm, kid: UUID) -> dict[KeyType, int]:
    """Return the length of each object of ``kid`` in bytes, by its type."""
    lengths = Errand(
        verb=lambda _, session: {
            found[Attribute.KEY_TYPE]: found[Attribute.VALUE_LEN]
            for found in found_of(session, kid)
        }
    )
    return token._connection.perform(lengths)


def found_of(session: Any, kid: UUID) -> list[Any]:
    """Return both halves of ``kid``; that of the MAC has an id of its own."""
    return [
        found
        for key_id in (kid.bytes, kid.bytes + b"\1")
        for found in session.find({Attribute.CLASS: ObjectClass.SECRET_KEY, Attribute.ID: key_id})
    ]


def destroy_half(token: Hsm, kid: UUID, key_type: KeyType) -> None:
    def destroy(lent: Any, session: Any) -> None:
        lent.stores["token"].forget(kid)
        for found in found_of(session, kid):
            if found[Attribute.KEY_TYPE] is key_type:
                found.destroy()

    token._connection.perform(Errand(verb=destroy))


# --- Known answers ---

# RFC 7518, appendix B
PLAINTEXT = (
    b"A cipher system must not be required to be secret, and it must be able to fall into the "
    b"hands of the enemy without inconvenience"
)
PRINCIPLE = b"The second principle of Auguste Kerckhoffs"
KNOWN = {
    "A128CBC-HS256": (
        "c80edfa32ddf39d5ef00c0b468834279a2e46a1b8049f792f76bfe54b903a9c9a94ac9b47ad2655c5f10f9ae"
        "f71427e2fc6f9b3f399a221489f16362c703233609d45ac69864e3321cf82935ac4096c86e133314c54019e8"
        "ca7980dfa4b9cf1b384c486f3a54c51078158ee5d79de59fbd34d848b3d69550a67646344427ade54b8851ff"
        "b598f7f80074b9473c82e2db",
        "652c3fa36b0a7c5b3219fab3a30bc1c4",
    ),
    "A192CBC-HS384": (
        "ea65da6b59e61edb419be62d19712ae5d303eeb50052d0dfd6697f77224c8edb000d279bdc14c1072654bd30"
        "944230c657bed4ca0c9f4a8466f22b226d1746214bf8cfc2400add9f5126e479663fc90b3bed787a2f0ffcbf"
        "3904be2a641d5c2105bfe591bae23b1d7449e532eef60a9ac8bb6c6b01d35d49787bcd57ef484927f280adc9"
        "1ac0c4e79c7b11efc60054e3",
        "8490ac0e58949bfe51875d733f93ac2075168039ccc733d7",
    ),
    "A256CBC-HS512": (
        "4affaaadb78c31c5da4b1b590d10ffbd3dd8d5d302423526912da037ecbcc7bd822c301dd67c373bccb584ad"
        "3e9279c2e6d12a1374b77f077553df829410446b36ebd97066296ae6427ea75c2e0846a11a09ccf5370dc80b"
        "fecbad28c73f09b3a3b75e662a2594410ae496b2e2e6609e31e6e02cc837f053d21f37ff4f51950bbe2638d0"
        "9dd7a4930930806d0703b1f6",
        "4dd3b4c088a7f45c216839645b2012bf2e6269a8c56a816dbc1b267761955bc5",
    ),
}


@every_enc
def test_rfc7518_appendix_b_opens(
    enc: str,
    token: Hsm,
    imported: Callable[[str, bytes], KeyRef],
    record_property: RecordProperty,
) -> None:
    ref = imported(enc, bytes(range(CEK_BYTES[enc])))
    iv = bytes.fromhex("1af38c2dc2b96ffdd86694092341bc04")
    sealed = hsm.Sealed(iv, *map(bytes.fromhex, KNOWN[enc]))
    assert token.decrypt(ref, "dir", enc, b"", sealed, PRINCIPLE) == PLAINTEXT
    count(record_property, "RFC 7518", 1)


EXAMPLES = json.loads(MANAGEMENT_FILE.read_text("utf-8"))
WITH_CBC = [name for name, example in EXAMPLES.items() if example["enc"] in CBC_HMAC]


@pytest.mark.parametrize("name", WITH_CBC)
def test_the_content_of_an_example_opens_with_its_cek(
    name: str, token: Hsm, imported: Callable[[str, bytes], KeyRef]
) -> None:
    example, enc = EXAMPLES[name], EXAMPLES[name]["enc"]
    ref, jwe = imported(enc, unb64u(example["cek"])), example["jwe"]
    sealed = hsm.Sealed(*(unb64u(jwe[part]) for part in ("iv", "ciphertext", "tag")))
    opened = token.decrypt(ref, "dir", enc, b"", sealed, jwe["protected"].encode())
    assert opened.decode() == example["plaintext"]


@pytest.fixture(scope="module")
def cases(local: Api) -> Iterator[list[Case]]:
    """What RSA-OAEP and ``dir`` send, with each enc; other libraries have tests of all."""
    pair = jwcrypto.jwk.JWK.generate(kty="RSA", size=2048).export(as_dict=True)
    made = []
    for enc in CBC_HMAC:
        secret = {"kty": "oct", "k": b64u(os.urandom(CEK_BYTES[enc]))}
        made.append(Case(local.create(**secret, alg=enc)["kid"], secret, "dir", enc, True))
    for alg in ("RSA-OAEP", "RSA-OAEP-256"):
        kid = local.create(**{**pair, "alg": alg})["kid"]
        made += [Case(kid, pair, alg, enc, True) for enc in CBC_HMAC]
    yield made
    for kid in {case.kid for case in made}:
        assert local.delete(kid).status == 204


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_jose_opens_what_the_service_makes_and_the_other_way_round(cases, local):
    made = [(case, encrypted(local, case)) for case in cases]
    assert decrypt_in_node(made) == [MESSAGE] * len(cases)
    spoiled = [(case, jwe | {"tag": b64u(bytes(TAG_BYTES[case.enc]))}) for case, jwe in made]
    assert decrypt_in_node(spoiled) == [None] * len(cases)
    for case, jwe in zip(cases, encrypt_in_node(cases), strict=True):
        assert local.ok("/decrypt", jwe) == {"kid": case.kid, "data": b64u(MESSAGE)}
        assert local.post("/decrypt", jwe | {"aad": "AAAA"}).content == FAILED


# --- What is refused ---


@pytest.fixture(scope="module", params=CBC_HMAC)
def message(request: pytest.FixtureRequest, local: Api) -> Iterator[tuple[str, bytes, Any]]:
    """An ``enc``, a CEK, and a JWE under it that opens."""
    enc = request.param
    cek = bytes(range(CEK_BYTES[enc]))
    kid = local.create(kty="oct", alg=enc, k=b64u(cek))["kid"]
    data = b64u(b"two blocks and a bit of the third")
    jwe = local.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": enc, "data": data, "aad": "AAAA"})
    assert local.ok("/decrypt", jwe)["data"] == data
    yield enc, cek, jwe
    assert local.delete(kid).status == 204


def test_ivs_and_tags_of_other_sizes_are_malformed(message, local):
    enc, _, jwe = message
    for size in (0, 1, 8, 12, 15, 17, 32):
        assert local.post("/decrypt", jwe | {"iv": b64u(bytes(size))}).refusal[0] == 400
    whole = unb64u(jwe["tag"])
    for size in {*range(len(whole)), 16, 24, 32, 48, 64} - {TAG_BYTES[enc]}:
        cut = b64u(whole[:size].ljust(size, b"\0"))
        answer = local.post("/decrypt", jwe | {"tag": cut})
        assert answer.refusal == (400, "bad_request")
        assert answer.body["description"] == f"Field 'tag' must be {TAG_BYTES[enc]} bytes long"


def test_a_bit_flipped_anywhere_is_one_and_the_same_failure(message, local):
    _, _, jwe = message
    for name in ("iv", "ciphertext", "tag", "aad"):
        octets = unb64u(jwe[name])
        for place in {0, len(octets) // 2, len(octets) - 1}:
            flipped = bytearray(octets)
            flipped[place] ^= 1
            answer = local.post("/decrypt", jwe | {name: b64u(bytes(flipped))})
            assert (answer.status, answer.content) == (422, FAILED)


def test_blocks_moved_between_the_parts_are_a_failure(message, local):
    """AL, at the end of what is authenticated, says where the AAD ends."""
    _, _, jwe = message
    iv, ciphertext = unb64u(jwe["iv"]), unb64u(jwe["ciphertext"])
    moved = {"iv": b64u(ciphertext[:16]), "ciphertext": b64u(ciphertext[16:])}
    for change in (moved, {"ciphertext": b64u(iv + ciphertext)}, {"ciphertext": ""}):
        answer = local.post("/decrypt", jwe | change)
        assert (answer.status, answer.content) == (422, FAILED)


BAD_PADDINGS = {
    "of zero": b"fifteen bytes..\0",
    "longer than a block": b"fifteen bytes..\x11",
    "of 255": b"fifteen bytes..\xff",
    "of unequal bytes": b"fourteen bytes\x01\x02",
    "of unequal bytes far from the end": b"\x0f" + b"\x10" * 15,
}


@pytest.mark.parametrize("padded", BAD_PADDINGS.values(), ids=BAD_PADDINGS)
def test_a_bad_padding_under_a_good_tag_is_the_same_failure(padded, message, local):
    enc, cek, jwe = message
    aad = f"{jwe['protected']}.{jwe['aad']}".encode()
    assert opens(local, jwe, seal_padded(enc, cek, IV, b"\x10" * 16, aad)).status == 200
    answer = opens(local, jwe, seal_padded(enc, cek, IV, padded, aad))
    assert (answer.status, answer.content) == (422, FAILED)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 31])
def test_a_ciphertext_of_no_whole_blocks_under_a_good_tag_is_the_same_failure(size, message, local):
    enc, cek, jwe = message
    aad = f"{jwe['protected']}.{jwe['aad']}".encode()
    sealed = hsm.Sealed(IV, bytes(size), tag(enc, cek, IV, bytes(size), aad))
    answer = opens(local, jwe, sealed)
    assert (answer.status, answer.content) == (422, FAILED)


def opens(api: Api, jwe: Any, sealed: hsm.Sealed) -> Any:
    parts = {name: b64u(value) for name, value in sealed._asdict().items()}
    return api.post("/decrypt", jwe | parts)


def count_here(chaos: Injector, function: str) -> list[str]:
    """Return what becomes as long as this thread calls ``function``; the canary has another."""
    calls, here = [], threading.get_ident()

    def call(original: Callable[..., int], *words: int) -> int:
        if threading.get_ident() == here:
            calls.append(function)
        return int(original(*words))

    chaos.replace(function, call)
    return calls


@every_enc
def test_what_is_not_authentic_is_never_decrypted(enc, token, imported, chaos):
    cek = bytes(range(CEK_BYTES[enc]))
    ref, sealed = imported(enc, cek), seal(enc, cek, IV, b"plain", AAD)
    decryptions = count_here(chaos, "C_DecryptInit")
    bad = sealed._replace(tag=bytes(len(sealed.tag)))
    with pytest.raises(DecryptionFailed):
        token.decrypt(ref, "dir", enc, b"", bad, AAD)
    assert decryptions == []
    assert token.decrypt(ref, "dir", enc, b"", sealed, AAD) == b"plain"
    assert len(decryptions) == 1


def flip_sign(chaos: Injector, *, times: int) -> None:
    left = [times]

    def flip(original: Callable[..., int], *words: int) -> int:
        answer = int(original(*words))
        if words[3] and left[0]:
            left[0] -= 1
            ctypes.c_ubyte.from_address(words[3]).value ^= 1
        return answer

    chaos.replace_own("C_Sign", flip)


def test_a_token_that_errs_in_the_mac_is_not_taken_for_a_bad_message(token, imported, chaos):
    enc, cek = "A128CBC-HS256", bytes(32)
    ref, sealed = imported(enc, cek), seal(enc, cek, IV, b"plain", AAD)
    flip_sign(chaos, times=1)
    with pytest.raises(WrongResult):
        token.decrypt(ref, "dir", enc, b"", sealed, AAD)
    flip_sign(chaos, times=1)
    with pytest.raises(WrongResult):
        token.encrypt(ref, "dir", enc, b"plain", lambda _: AAD)


# --- One key of two objects ---


@every_enc
@pytest.mark.parametrize("origin", ["generated", "imported"])
def test_a_key_is_two_objects_and_both_are_destroyed(enc, origin, local, token):
    """The MAC half is as long as the hash, padded if it was imported; the other half as it is."""
    size = CEK_BYTES[enc]
    material = {"k": b64u(bytes(range(size)))} if origin == "imported" else {}
    kid = UUID(local.create(kty="oct", alg=enc, **material)["kid"])
    assert objects(token, kid) == {KeyType.GENERIC_SECRET: size, KeyType.AES: size // 2}
    assert local.delete(str(kid)).status == 204
    assert objects(token, kid) == {}
    assert local.delete(str(kid)).refusal == NOT_FOUND


@pytest.mark.parametrize("alg", ["RSA-OAEP", "RSA-OAEP-256"])
@every_enc
def test_an_unwrapped_cek_is_two_objects_and_has_passed_through_the_process(
    enc, alg, transports, local, token
):
    kid, size = transports[alg], CEK_BYTES[enc]
    jwe = local.ok("/encrypt", {"kid": kid, "alg": alg, "enc": enc, "data": "AAAA"})
    unwrapped = local.ok("/keys/unwrap", jwe)["kid"]
    # Unwrapped objects have no CKA_VALUE_LEN that would say anything.
    assert set(objects(token, UUID(unwrapped))) == {KeyType.GENERIC_SECRET, KeyType.AES}
    described = local.get(f"/keys/{unwrapped}").body
    assert (described["residency"], described["size"]) == ("process", 8 * size)
    request = {"kid": unwrapped, "alg": "dir", "enc": enc, "data": "AAAA"}
    assert local.ok("/decrypt", local.ok("/encrypt", request))["data"] == "AAAA"
    assert local.delete(unwrapped).status == 204
    assert objects(token, UUID(unwrapped)) == {}


@pytest.fixture(scope="module")
def transports(local: Api) -> dict[str, str]:
    """A key that wraps CEKs, by its alg."""
    return {alg: local.shared(kty="RSA")["kid"] for alg in ("RSA-OAEP", "RSA-OAEP-256")}


def test_two_generated_keys_share_neither_half(local):
    first, second = (local.create(kty="oct", alg="A128CBC-HS256")["kid"] for _ in range(2))
    request = {"alg": "dir", "enc": "A128CBC-HS256", "data": "AAAA"}
    jwe = local.ok("/encrypt", request | {"kid": first})
    other = header(alg="dir", enc="A128CBC-HS256", kid=second)
    assert local.post("/decrypt", jwe | {"protected": other}).content == FAILED


@pytest.mark.parametrize("gone", [KeyType.AES, KeyType.GENERIC_SECRET], ids=["AES", "HMAC"])
def test_half_a_key_does_nothing_and_is_told_and_destroyed(gone, local, token, application):
    key = local.create(kty="oct", alg="A128CBC-HS256")
    request = {"kid": key["kid"], "alg": "dir", "enc": "A128CBC-HS256", "data": "AAAA"}
    jwe = local.ok("/encrypt", request)
    kid = UUID(key["kid"])
    destroy_half(token, kid, gone)
    assert local.post("/encrypt", request).refusal == UNAVAILABLE  # 404 would be a lie
    assert local.post("/decrypt", jwe).refusal == UNAVAILABLE
    assert kid in service_of(application).keyring.recovery.reconcile(dry_run=True).missing
    assert local.delete(str(kid)).status == 204
    assert objects(token, kid) == {}


@pytest.mark.parametrize("function", ["C_GenerateKey", "C_CreateObject"])
def test_what_dies_between_the_halves_leaves_nothing_that_can_be_reached(
    function, local, token, chaos, application, monkeypatch
):
    keyring = service_of(application).keyring
    rows = set(keyring.recovery.registry.specs())
    made: list[int] = []

    def only_once(original: Callable[..., int], *words: int) -> int:
        made.append(int(original(*words)) if not made else DEVICE_REMOVED)
        return made[-1]

    def stay(*_: Any) -> None:
        raise TokenUnavailable("the token does not answer")

    body = {"kty": "oct", "alg": "A128CBC-HS256"}
    with monkeypatch.context() as fault:
        fault.setattr(Hsm, "destroy", stay)  # as when the process is killed
        chaos.replace_own(function, only_once)
        material = {"k": b64u(bytes(32))} if function == "C_CreateObject" else {}
        assert local.post("/keys", body | material).refusal == UNAVAILABLE
        assert made[0] == injector.OK
    chaos.heal()
    until(lambda: token.reason is None and token.state.phase is hsm.Phase.READY)
    (kid,) = set(keyring.recovery.registry.specs()) - rows
    assert len(objects(token, kid)) == 1
    request = {"kid": str(kid), "alg": "dir", "enc": "A128CBC-HS256", "data": ""}
    assert local.post("/encrypt", request).refusal == NOT_FOUND
    assert kid in keyring.recovery.reconcile(dry_run=False).settled
    assert objects(token, kid) == {}
    assert kid not in keyring.recovery.registry.specs()


def test_a_creation_that_is_not_recorded_leaves_neither_half(local, token, monkeypatch):
    before = set(token.inventory())
    with monkeypatch.context() as fault:

        def fail(*_: Any) -> None:
            raise RegistryUnavailable

        fault.setattr(Registry, "activate_all", fail)
        body = {"kty": "oct", "alg": "A256CBC-HS512"}
        assert local.post("/keys", body).refusal == UNAVAILABLE
    assert set(token.inventory()) == before


def test_a_creation_that_is_tried_twice_makes_one_key(token, chaos):
    ref, values = new_ref(spec_of("A128CBC-HS256")), []

    def generate_then_fail(original: Callable[..., int], *words: int) -> int:
        values.append(int(original(*words)))
        # The first try loses its session after the second half.
        return injector.SESSION_HANDLE_INVALID if len(values) == 2 else values[-1]

    chaos.replace_own("C_GenerateKey", generate_then_fail)
    token.generate(ref)
    chaos.heal()
    assert values == [injector.OK] * 4
    assert len(token.inventory()[ref.kid]) == 2
    assert len(objects(token, ref.kid)) == 2
    token.destroy(ref)
    assert ref.kid not in token.inventory()


def test_a_key_made_before_mac_halves_had_an_id_of_their_own_is_found_used_and_destroyed(token):
    ref, cek = new_ref(spec_of("A128CBC-HS256")), bytes(range(32))
    row = hsm.CONTENT_ENCRYPTIONS["A128CBC-HS256"]

    def make_as_before(_lent: Any, session: Any) -> None:
        for part, share in zip(row.parts, row.shares(cek), strict=True):
            session.create_object(Templates().imported_secret(ref.kid, part, share))

    token._connection.perform(Errand(verb=make_as_before))
    sealed = seal("A128CBC-HS256", cek, IV, b"plain", AAD)
    for _ in range(2):  # looked for, and remembered
        assert token.decrypt(ref, "dir", "A128CBC-HS256", b"", hsm.Sealed(*sealed), AAD) == b"plain"
    assert token.differences({ref.kid: ref.spec})[0] == set()
    assert token.works(ref)
    token.destroy(ref)
    assert objects(token, ref.kid) == {}
    assert token.differences({ref.kid: ref.spec})[0] == {ref.kid}


def test_a_half_that_the_next_one_overwrites_is_noticed_before_the_key_is_given_away(token, chaos):
    ref, handles = new_ref(spec_of("A128CBC-HS256")), []

    def overwrite(original: Callable[..., int], *words: int) -> int:
        answer = int(original(*words))
        handle = ctypes.c_ulong.from_address(words[4])
        handles.append(handle.value)
        if len(handles) % 2 == 0:  # as NSS does with two secret keys of one CKA_ID
            handle.value = handles[-2]
        return answer

    chaos.replace_own("C_GenerateKey", overwrite)
    with pytest.raises(hsm.HsmError):
        token.generate(ref)
    assert len(handles) == 8
    chaos.heal()
    token.destroy(ref)
    assert objects(token, ref.kid) == {}


def test_its_encryptions_are_not_counted(local, application):
    """The limit of 2^32 is that of random IVs of 96 bits."""
    kid = local.create(kty="oct", alg="A128CBC-HS256")["kid"]
    local.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": "A128CBC-HS256", "data": ""})
    registry = service_of(application).registry
    block, total = registry.reserve_encryptions(UUID(kid), 1, most=2**32)
    assert (block, total) == (1, 1)
