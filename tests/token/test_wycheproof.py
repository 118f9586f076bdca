"""Vectors of C2SP/wycheproof; a test is one file, and names every case that comes out otherwise."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pkcs11 import Attribute

import hsm
from app.service import service_of
from hsm import CryptoFailure, DecryptionFailed, KeyRef, KeySpec, Sealed
from hsm.life.work import Errand
from hsm.messages import NO_AGREEMENT
from hsm.operations import content
from hsm.operations.cek import Outcome
from hsm.operations.session_keys import SessionKeys
from scripts.tokens import ANY_SIZE
from tests.shared.api import Answer, Api, b64u, header, leave_out_if_lacking
from tests.shared.bodies import body_of, crvs_of
from tests.shared.refs import new_ref
from tests.shared.sealing import CEK_BYTES, IV_BYTES, seal
from tests.shared.vector_counts import RecordProperty, count

Group = dict[str, Any]
Case = dict[str, Any]

SIGNATURE_FILES = {
    "RS256": "rsa_signature_2048_sha256_test.json",
    "PS256": "rsa_pss_2048_sha256_mgf1_32_test.json",
    "ES256": "ecdsa_secp256r1_sha256_p1363_test.json",
    "ES384": "ecdsa_secp384r1_sha384_p1363_test.json",
    "EdDSA": "ed25519_test.json",
}
TRANSPORT_FILES = {
    "RSA-OAEP": "rsa_oaep_2048_sha1_mgf1sha1_test.json",
    "RSA-OAEP-256": "rsa_oaep_2048_sha256_mgf1sha256_test.json",
}
MAC_FILE = "hmac_sha256_test.json"
GCM_FILE = "aes_gcm_test.json"
WRAP_FILE = "aes_wrap_test.json"
ECDH_FILE = "ecdh_secp256r1_webcrypto_test.json"
WRAP_BY_BITS = {8 * row.key_bytes: name for name, row in hsm.KEY_WRAPPINGS.items()}
CBC_FILE = "a128cbc_hs256_test.json"
GCM_BY_BYTES = {16: "A128GCM", 24: "A192GCM", 32: "A256GCM"}
# Failures take their time; the other two of AES-CBC differ in nothing but sizes.
TRANSPORTED = (*GCM_BY_BYTES.values(), "A128CBC-HS256")
AAD = b"additional data"
PLAINTEXT = b"sealed under the CEK of the case"


@pytest.fixture
def adapter(application: Any) -> hsm.Hsm:
    return service_of(application).hsm


@pytest.fixture
def read(vectors: Path) -> Callable[[str], list[Group]]:
    """The groups of a file."""

    def groups(file: str) -> list[Group]:
        return json.loads((vectors / "wycheproof" / file).read_text("utf-8"))["testGroups"]

    return groups


@pytest.fixture
def groups(
    read: Callable[[str], list[Group]], record_property: RecordProperty
) -> Callable[[str], list[Group]]:
    """The groups of a file that concern JOSE; they count as run, the others as left out."""

    def concerned(file: str) -> list[Group]:
        everything = read(file)
        taken = [group for group in everything if has_jose_sizes(group)]
        run = sum(len(group["tests"]) for group in taken)
        left_out = sum(len(group["tests"]) for group in everything) - run
        count(record_property, file, run, {"IV or tag size that JOSE does not have": left_out})
        return taken

    return concerned


def has_jose_sizes(group: Group) -> bool:
    """Tell whether an AES-GCM group has the sizes of RFC 7518 §5.3; other groups have no IV."""
    return group.get("ivSize") in (None, 96) and ("ivSize" not in group or group["tagSize"] == 128)


def octets(case: Case, name: str) -> bytes:
    return bytes.fromhex(case[name])


def is_valid(case: Case) -> bool:
    """Tell whether the service has to accept a case.

    Not one that is merely "acceptable". There is one: its DigestInfo lacks the NULL that
    EMSA-PKCS1-v1_5 demands (RFC 8017 §A.2.4), so that comparing the encodings (§8.2.2) refuses it.
    """
    return case["result"] == "valid"


@contextmanager
def public_key(adapter: hsm.Hsm, spec: KeySpec, pem: str) -> Iterator[KeyRef]:
    """Have a bare public key on the token for one ``with`` block; give its name.

    No caller can import one, and the vectors have no private keys. The object is the one that the
    import of a pair makes, template and all; only its private half is missing.
    """
    ref = new_ref(spec)
    pair = cast(
        hsm.PrivateKey, SimpleNamespace(public_key=lambda: load_pem_public_key(pem.encode()))
    )

    def create(token: Any, session: Any) -> None:
        templates = token.stores["token"]._templates  # there is no public way
        session.create_object(templates.imported_public(ref.kid, spec, pair.public_key()))

    def destroy(token: Any, session: Any) -> None:
        token.stores["token"].forget(ref.kid)
        for found in session.find({Attribute.ID: ref.kid.bytes}):
            session.destroy(found)

    adapter._connection.perform(Errand(verb=create))
    try:
        yield ref
    finally:
        adapter._connection.perform(Errand(verb=destroy))


@contextmanager
def secret_key(adapter: hsm.Hsm, alg: str, value: bytes) -> Iterator[KeyRef]:
    """Have a secret key on the token for one ``with`` block; give its name."""
    ref = new_ref(KeySpec(kty="oct", alg=alg, bits=8 * len(value)))
    adapter.import_key(ref, value)
    try:
        yield ref
    finally:
        adapter.destroy(ref)


# --- Signatures ---


@pytest.mark.parametrize(("alg", "file"), SIGNATURE_FILES.items())
def test_only_valid_signatures_verify(
    alg: str,
    file: str,
    adapter: hsm.Hsm,
    groups: Callable[[str], list[Group]],
    lacks: frozenset[str],
) -> None:
    leave_out_if_lacking(lacks, alg)
    members: dict[str, Any] = body_of(alg)
    spec = KeySpec(**members)
    expected, answers = {}, {}
    for group in groups(file):
        with public_key(adapter, spec, group["publicKeyPem"]) as ref:
            for case in group["tests"]:
                expected[case["tcId"]] = is_valid(case)
                answers[case["tcId"]] = adapter.verify(
                    ref, alg, octets(case, "msg"), octets(case, "sig")
                )
    assert answers == expected


# --- MAC ---


def test_only_whole_hmac_tags_under_keys_as_long_as_the_hash_are_valid(
    local: Api, groups: Callable[[str], list[Group]]
) -> None:
    expected, answers = {}, {}
    imported: dict[str, Answer] = {}  # most keys are those of several cases
    for group in groups(MAC_FILE):
        for case in group["tests"]:
            if case["key"] not in imported:
                imported[case["key"]] = import_mac_key(local, case)
            expected[case["tcId"]] = hmac_verdict(group, case)
            answers[case["tcId"]] = mac_answer(local, imported[case["key"]], case)
    for created in imported.values():
        assert created.status != 200 or local.delete(created.body["kid"]).status == 204
    assert answers == expected


def hmac_verdict(group: Group, case: Case) -> tuple[object, str | None]:
    """Return what /mac has to say: is the tag valid, and which tag is right."""
    if group["keySize"] < 256:  # RFC 7518 §3.2
        return (400, "bad_request"), None
    is_whole = group["tagSize"] == 256
    return is_whole and is_valid(case), case["tag"] if is_whole and is_valid(case) else None


def import_mac_key(api: Api, case: Case) -> Answer:
    return api.post("/keys", {"kty": "oct", "alg": "HS256", "k": b64u(octets(case, "key"))})


def mac_answer(api: Api, created: Answer, case: Case) -> tuple[object, str | None]:
    if created.status != 200:
        return created.refusal, None
    request = {"kid": created.body["kid"], "alg": "HS256", "data": b64u(octets(case, "msg"))}
    answer = api.ok("/mac", request | {"mac": b64u(octets(case, "tag"))})
    computed = api.ok("/mac", request)["mac"]
    is_same = computed == b64u(octets(case, "tag"))
    return answer["valid"], case["tag"] if is_same else None


# --- Content encryption ---


def test_only_valid_aes_gcm_ciphertexts_decrypt(
    adapter: hsm.Hsm, groups: Callable[[str], list[Group]]
) -> None:
    expected, answers = {}, {}
    for group in groups(GCM_FILE):
        for case in group["tests"]:
            expected[case["tcId"]] = case["msg"] if is_valid(case) else None
            enc = GCM_BY_BYTES[len(octets(case, "key"))]
            answers[case["tcId"]] = opened(adapter, enc, case)
    assert answers == expected


def test_only_valid_aes_cbc_hmac_ciphertexts_decrypt(
    adapter: hsm.Hsm, read: Callable[[str], list[Group]], record_property: RecordProperty
) -> None:
    cases = [case for group in read(CBC_FILE) for case in group["tests"]]
    expected = {case["tcId"]: case["msg"] if is_valid(case) else None for case in cases}
    assert {case["tcId"]: opened(adapter, "A128CBC-HS256", case) for case in cases} == expected
    count(record_property, CBC_FILE, len(cases))


def opened(adapter: hsm.Hsm, enc: str, case: Case) -> str | None:
    """Decrypt a case, which cannot come over HTTP: its AAD is no JWE header."""
    sealed = Sealed(*(octets(case, name) for name in ("iv", "ct", "tag")))
    with secret_key(adapter, enc, octets(case, "key")) as ref:
        try:
            return adapter.decrypt(ref, "dir", enc, b"", sealed, octets(case, "aad")).hex()
        except DecryptionFailed:
            return None


def test_aes_gcm_with_ivs_and_tags_of_other_sizes_is_refused(
    local: Api, read: Callable[[str], list[Group]]
) -> None:
    kids = {enc: local.create(kty="oct", alg=enc)["kid"] for enc in GCM_BY_BYTES.values()}
    cases = [
        case for group in read(GCM_FILE) if not has_jose_sizes(group) for case in group["tests"]
    ]
    assert cases
    for case in cases:
        enc = GCM_BY_BYTES[len(octets(case, "key"))]
        jwe = {"iv": case["iv"], "ciphertext": case["ct"], "tag": case["tag"]}
        body = {name: b64u(bytes.fromhex(value)) for name, value in jwe.items()}
        protected = header(alg="dir", enc=enc, kid=kids[enc])
        answer = local.post("/decrypt", {"protected": protected} | body)
        assert answer.refusal == (400, "bad_request"), case["tcId"]


# --- Key transport ---


@pytest.mark.parametrize("named", TRANSPORT_FILES.items(), ids="-".join)
def test_rsa_oaep_recovers_a_cek_or_nothing(
    named: tuple[str, str],
    local: Api,
    adapter: hsm.Hsm,
    groups: Callable[[str], list[Group]],
    lacks: frozenset[str],
) -> None:
    alg, file = named
    expected, answers = {}, {}
    for group in groups(file):
        key = Transport(adapter, alg, local.create(**{**group["privateKeyJwk"], "alg": alg})["kid"])
        for case, enc in product(group["tests"], TRANSPORTED):
            expected[case["tcId"], enc] = transport_verdict(case, enc)
            answers[case["tcId"], enc] = (
                outcome(key.unwrap, enc, case),
                outcome(key.decrypt, enc, case),
            )
            if is_no_key(case, lacks) and answers[case["tcId"], enc][0] is DecryptionFailed:
                expected[case["tcId"], enc] = (DecryptionFailed, DecryptionFailed)
    assert answers == expected


def is_no_key(case: Case, lacks: frozenset[str]) -> bool:
    """Whether a token that takes keys alone may call bad what has another size than any."""
    return ANY_SIZE in lacks and len(octets(case, "msg")) not in {16, 24, 32}


def transport_verdict(case: Case, enc: str) -> tuple[object, object]:
    """Return what ``unwrap`` and ``decrypt`` have to make of a case.

    JOSE has the empty label only, so that a case with another is as bad as an invalid one.
    """
    if not is_valid(case) or case["label"]:
        return DecryptionFailed, DecryptionFailed
    if len(octets(case, "msg")) != hsm.CONTENT_ENCRYPTIONS[enc].key_bytes:
        return CryptoFailure, DecryptionFailed
    return PLAINTEXT, PLAINTEXT


def outcome(operation: Callable[[str, Case], bytes], enc: str, case: Case) -> object:
    """Return the plaintext, or the type of the error."""
    try:
        return operation(enc, case)
    except hsm.HsmError as error:
        return type(error)


def sealed_under(case: Case, enc: str) -> Sealed:
    """Seal under the message of the case, made as long as ``enc`` needs it."""
    size = CEK_BYTES[enc]
    cek = octets(case, "msg").ljust(size, b"\0")[:size]
    return seal(enc, cek, bytes(IV_BYTES[enc]), PLAINTEXT, AAD)


def test_aes_key_wrap_recovers_a_cek_or_nothing(
    adapter: hsm.Hsm, groups: Callable[[str], list[Group]], lacks: frozenset[str]
) -> None:
    """Unwrap with session objects, as ``decrypt`` and ``unwrap`` do; 165 keys need no token files.

    The ``acceptable`` ones are of 8 bytes: RFC 3394 §2 begins at two blocks.
    """
    expected, answers = {}, {}
    for group in groups(WRAP_FILE):
        alg = WRAP_BY_BITS[group["keySize"]]
        for case, enc in product(group["tests"], TRANSPORTED):
            expected[case["tcId"], enc] = wrap_verdict(case, enc)
            answers[case["tcId"], enc] = unwrapped(adapter, alg, enc, case)
            if is_no_key(case, lacks) and answers[case["tcId"], enc][0] is Outcome.REJECTED:
                expected[case["tcId"], enc] = Outcome.REJECTED, False
    assert answers == expected


def wrap_verdict(case: Case, enc: str) -> tuple[Outcome, bool]:
    """Return how the unwrapping of a case has to end, and whether the CEK is that of the case."""
    if not is_valid(case):
        return Outcome.REJECTED, False
    if len(octets(case, "msg")) != hsm.CONTENT_ENCRYPTIONS[enc].key_bytes:
        return Outcome.WRONG_SIZE, False
    return Outcome.RECOVERED, True


def unwrapped(adapter: hsm.Hsm, alg: str, enc: str, case: Case) -> tuple[Outcome, bool]:
    row, enc_row = hsm.KEY_MANAGEMENTS[alg], hsm.CONTENT_ENCRYPTIONS[enc]

    def unwrap(token: Any, session: Any) -> tuple[Outcome, bool]:
        keys = SessionKeys(token.stores["token"]._templates, token.canary)
        sealed, encrypted_key = sealed_under(case, enc), octets(case, "ct")
        with (
            keys.imported(session, row, octets(case, "key")) as kek,
            token.transport(alg, enc).unwrapped(kek, encrypted_key, NO_AGREEMENT) as found,
        ):
            is_open = content.opens(found.cek, enc_row, sealed, AAD, PLAINTEXT)
            return found.outcome, is_open

    return adapter._connection.perform(Errand(verb=unwrap))


# --- Key agreement ---


def test_ecdh_on_p256_agrees_on_what_the_vectors_say_and_takes_no_bad_key(
    local: Api, groups: Callable[[str], list[Group]]
) -> None:
    expected, answers = {}, {}
    for group in groups(ECDH_FILE):
        kids: dict[str, str] = {}
        for case in group["tests"]:
            d = case["private"]["d"]
            if d not in kids:
                made = local.post("/keys", case["private"] | {"alg": "ECDH-ES"})
                kids[d] = made.body["kid"]
            expected[case["tcId"]] = agreement_verdict(case)
            answer = local.post("/decrypt", agreed_on(case, kids[d]))
            answers[case["tcId"]] = 200 if answer.status == 200 else answer.refusal
        for kid in kids.values():
            assert local.delete(kid).status == 204
    assert answers == expected


def agreement_verdict(case: Case) -> object:
    """Return what /decrypt has to answer: a sound key of another curve does not fit ours."""
    if is_valid(case):
        return 200
    is_sound = case["public"]["crv"] in crvs_of("ECDH-ES") and case["flags"] == ["WrongCurve"]
    return (422, "crypto_failure") if is_sound else (400, "bad_request")


def agreed_on(case: Case, kid: str) -> dict[str, str]:
    """Return a JWE under the CEK that follows from the shared secret of the case."""
    epk = {name: value for name, value in case["public"].items() if name != "kid"}
    protected = header(alg="ECDH-ES", enc="A256GCM", kid=kid, epk=epk)
    z = octets(case, "shared") or bytes(32)
    info = b"\0\0\0\x07A256GCM" + bytes(8) + (256).to_bytes(4)
    cek = sha256(b"\0\0\0\x01" + z + info).digest()
    sealed = seal("A256GCM", cek, bytes(12), PLAINTEXT, protected.encode())
    return {"protected": protected} | {
        name: b64u(value) for name, value in sealed._asdict().items()
    }


class Transport:
    """The private key of a group, at the adapter: over HTTP an empty ciphertext is a 400."""

    def __init__(self, adapter: hsm.Hsm, alg: str, kid: str) -> None:
        self._adapter = adapter
        self._alg = alg
        self._ref = KeyRef(kid=UUID(kid), spec=KeySpec(kty="RSA", alg=alg))

    def decrypt(self, enc: str, case: Case) -> bytes:
        sealed = sealed_under(case, enc)
        return self._adapter.decrypt(self._ref, self._alg, enc, octets(case, "ct"), sealed, AAD)

    def unwrap(self, enc: str, case: Case) -> bytes:
        """Unwrap the case, and show with the new key that it is the CEK."""
        cek = new_ref(KeySpec(kty="oct", alg=enc))
        self._adapter.unwrap(self._ref, self._alg, enc, octets(case, "ct"), cek)
        try:
            return self._adapter.decrypt(cek, "dir", enc, b"", sealed_under(case, enc), AAD)
        finally:
            self._adapter.destroy(cek)
