"""One message, several recipients: General JSON Serialization (RFC 7516 §7.2.1)."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import jwcrypto.jwe
import jwcrypto.jwk
import pytest
from joserfc import jwe, jwk

import hsm
from app.auth import ANONYMOUS
from app.keys.budget import MOST_ENCRYPTIONS
from app.rights import Principal
from app.service import service_of
from tests.shared.api import Api, b64u, unb64u
from tests.shared.bodies import no_arrays_of
from tests.shared.injector import NAMES
from tests.shared.reads import reads_of, unasked

MESSAGE = b"It\xe2\x80\x99s a dangerous business, Frodo"
DATA = b64u(MESSAGE)
KEYS: Mapping[str, dict[str, Any]] = {
    "RSA-OAEP": {"kty": "RSA", "alg": "RSA-OAEP"},
    "RSA-OAEP-256": {"kty": "RSA", "alg": "RSA-OAEP-256"},
    "A128KW": {"kty": "oct", "alg": "A128KW"},
    "A256GCMKW": {"kty": "oct", "alg": "A256GCMKW"},
    "ECDH-ES+A128KW": {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A128KW"},
    "ECDH-ES+A256KW": {"kty": "OKP", "crv": "X25519", "alg": "ECDH-ES+A256KW"},
}
ENCS = list(hsm.CONTENT_ENCRYPTIONS)
IN_TOKEN = ("A128KW", "RSA-OAEP", "ECDH-ES+A128KW")
Body = dict[str, Any]
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


@pytest.fixture(scope="module")
def keys(live: Api) -> dict[str, Body]:
    return {alg: live.create(**members) for alg, members in KEYS.items()}


@pytest.fixture(scope="module")
def strangers() -> dict[str, jwcrypto.jwk.JWK]:
    """Private keys of somebody else's."""
    generate = jwcrypto.jwk.JWK.generate
    return {
        "RSA-OAEP-256": generate(kty="RSA", size=2048, kid="theirs"),
        "ECDH-ES+A128KW": generate(kty="EC", crv="P-256"),
    }


def ours(keys: Mapping[str, Body], *algs: str) -> list[Body]:
    return [{"kid": keys[alg]["kid"], "alg": alg} for alg in algs or KEYS]


def theirs(strangers: Mapping[str, jwcrypto.jwk.JWK]) -> list[Body]:
    return [{"jwk": key.export_public(as_dict=True), "alg": alg} for alg, key in strangers.items()]


def general(recipients: Any, enc: Any = "A256GCM", **members: Any) -> Body:
    body = {"data": DATA, "enc": enc, "serialization": "general", "recipients": recipients}
    return body | members


def opened(key: jwcrypto.jwk.JWK, message: Body) -> bytes:
    reader = jwcrypto.jwe.JWE(algs=[*hsm.KEY_MANAGEMENTS, *hsm.CONTENT_ENCRYPTIONS])
    reader.deserialize(json.dumps(message), key)
    return bytes(reader.payload)


# --- What is made ---


def test_what_is_shared_is_protected_and_the_rest_is_of_each(live, keys):
    made = live.ok("/encrypt", general(ours(keys), typ="JOSE+JSON", header={"x": 1}))
    assert list(made) == ["protected", "recipients", "iv", "ciphertext", "tag"]
    protected = json.loads(unb64u(made["protected"]))
    assert list(protected.items()) == [("enc", "A256GCM"), ("typ", "JOSE+JSON"), ("x", 1)]
    found = {one["header"]["alg"]: one["header"] for one in made["recipients"]}
    assert list(found) == list(KEYS)
    for alg, told in found.items():
        more = ["epk"] if alg in hsm.KEY_AGREEMENTS else []
        more = ["iv", "tag"] if alg in hsm.GCM_KEY_WRAPPINGS else more
        assert list(told) == ["alg", "kid", *more]
        assert told["kid"] == keys[alg]["kid"]


@pytest.mark.parametrize("enc", ENCS)
@pytest.mark.parametrize("algs", [tuple(KEYS), IN_TOKEN], ids=["all", "in the token"])
def test_each_of_our_keys_opens_it(live, keys, enc, algs):
    made = live.ok("/encrypt", general(ours(keys, *algs), enc, aad=b64u("aad")))
    assert made["aad"] == b64u("aad")
    for alg in algs:
        kid = keys[alg]["kid"]
        assert live.ok("/decrypt", made | {"kid": kid}) == {"kid": kid, "data": DATA}
        [alone] = [one for one in made["recipients"] if one["header"]["alg"] == alg]
        assert live.ok("/decrypt", made | {"recipients": [alone]}) == {"kid": kid, "data": DATA}
    changed = made | {"aad": b64u("x"), "kid": keys[algs[0]]["kid"]}
    assert live.post("/decrypt", changed).refusal == (422, "decryption_failed")


@pytest.mark.parametrize("enc", ENCS)
@pytest.mark.parametrize("is_mixed", [True, False])
def test_each_of_somebody_elses_opens_it(live, keys, strangers, enc, is_mixed):
    recipients = theirs(strangers) + (ours(keys) if is_mixed else [])
    made = live.ok("/encrypt", general(recipients, enc))
    for key in strangers.values():
        assert opened(key, made) == MESSAGE
    assert [one["header"].get("kid") for one in made["recipients"][:2]] == ["theirs", None]
    if is_mixed:
        kid = keys["A128KW"]["kid"]
        assert live.ok("/decrypt", made | {"kid": kid})["data"] == DATA


@pytest.mark.parametrize("enc", ["A128GCM", "A256CBC-HS512"])
def test_joserfc_opens_what_keys_that_we_share_wrap(live, enc):
    secrets = [jwk.OctKey.generate_key(size) for size in (128, 256)]
    algs = ["A128KW", "A256GCMKW"]
    kids = [
        live.create(**secret.as_dict(private=True), alg=alg)["kid"]
        for secret, alg in zip(secrets, algs, strict=True)
    ]
    recipients = [{"kid": kid, "alg": alg} for kid, alg in zip(kids, algs, strict=True)]
    made = live.ok("/encrypt", general(recipients, enc))
    for secret, one in zip(secrets, made["recipients"], strict=True):
        message = made | {"recipients": [one]}
        found = jwe.decrypt_json(message, secret, algorithms=[*algs, enc])
        assert found.plaintext == MESSAGE


def test_both_parties_are_named_in_the_header_of_theirs_alone(live, keys, strangers):
    parties = {"apu": b64u("Alice"), "apv": b64u("Bob")}
    plain, agreeing = ours(keys, "A128KW", "ECDH-ES+A128KW")
    recipients = [plain, agreeing | parties, theirs(strangers)[1] | parties]
    made = live.ok("/encrypt", general(recipients))
    told = [one["header"].keys() & {"apu", "apv"} for one in made["recipients"]]
    assert told == [set(), {"apu", "apv"}, {"apu", "apv"}]
    assert live.ok("/decrypt", made | {"kid": agreeing["kid"]})["data"] == DATA
    assert opened(strangers["ECDH-ES+A128KW"], made) == MESSAGE


@pytest.mark.parametrize("enc", ["A128GCM", "A128CBC-HS256"])
def test_the_cek_never_leaves_the_token_where_no_recipient_needs_its_value(
    local, chaos, monkeypatch, enc
):
    recipients = [{"kid": local.create(**KEYS[alg])["kid"], "alg": alg} for alg in IN_TOKEN]
    imported: list[int] = []
    imports = hsm.operations.cek.CekPath._imported

    def note(path: Any, keys: Any, row: Any, value: bytes) -> Any:
        imported.append(len(value))
        return imports(path, keys, row, value)

    monkeypatch.setattr("hsm.operations.cek.CekPath._imported", note)
    monkeypatch.setattr("hsm.operations.content.require_opens", lambda *_: None)
    local.ok("/encrypt", general(recipients, enc))
    made_outside = imported[:1]
    assert bool(made_outside) is (enc == "A128CBC-HS256")


def test_the_token_wraps_for_a_key_of_somebody_elses_too(local, chaos, strangers):
    stranger = strangers["RSA-OAEP-256"]
    held = {"kid": local.create(**KEYS["A128KW"])["kid"], "alg": "A128KW"}
    brought = {"jwk": stranger.export_public(as_dict=True), "alg": "RSA-OAEP"}
    calls = chaos.count_own("C_CreateObject", "C_GenerateKey", "C_UnwrapKey", "C_DestroyObject")
    made = local.ok("/encrypt", general([held, brought]))
    destroyed = calls.pop("C_DestroyObject")
    assert calls["C_CreateObject"] == 1  # the public key; a CEK from the process would be another
    assert sum(calls.values()) == destroyed
    assert opened(stranger, made) == MESSAGE
    assert local.ok("/decrypt", made | {"kid": held["kid"]})["data"] == DATA


def test_all_keys_are_read_at_once_in_a_batch_too(local, application):
    recipients = [{"kid": local.create(**KEYS["A128KW"])["kid"], "alg": "A128KW"} for _ in "123"]
    with reads_of(service_of(application).registry) as reads:
        local.ok("/encrypt", general(recipients))
    assert len(reads) == 1
    requests = [{"op": "encrypt", "body": general(recipients)}] * 2
    with reads_of(service_of(application).registry) as reads:
        answers = local.ok("/batch", {"requests": requests})["responses"]
    assert [one["status"] for one in answers] == [200, 200]
    assert len(reads) == 1
    for one, kid in zip(answers, (recipients[0]["kid"], recipients[2]["kid"]), strict=True):
        assert local.ok("/decrypt", one["body"] | {"kid": kid})["data"] == DATA


# --- What is refused ---

BAD_REQUEST = (400, "bad_request")
UNSUPPORTED = (422, "unsupported_algorithm")
NOT_FOUND = (404, "not_found")
DENIED = (403, "forbidden")
MISFIT = (422, "crypto_failure")
ONE: Body = {"kid": "x", "alg": "A128KW"}
EC: Body = jwcrypto.jwk.JWK.generate(kty="EC", crv="P-256").export_public(as_dict=True)
NO_RECIPIENTS: Mapping[str, Any] = {"absent": None, **no_arrays_of(ONE)}
MALFORMED: Mapping[str, tuple[Body, tuple[int, str], str]] = {
    **{
        f"recipients that are {title}": (general(value), BAD_REQUEST, "'recipients'")
        for title, value in NO_RECIPIENTS.items()
    },
    **{
        f"recipients beside {name}": (general([ONE], **{name: value}), BAD_REQUEST, f"'{name}'")
        for name, value in {"kid": "x", "jwk": EC, "alg": "dir", "apu": "", "apv": ""}.items()
    },
    **{
        f"recipients with serialization {form}": (
            general([ONE], serialization=form),
            BAD_REQUEST,
            "'serialization'",
        )
        for form in (None, "flattened", "compact", "x", 5)
    },
    **{
        f"{alg} for {number}": (
            general([{"kid": "x", "alg": alg}] * number),
            UNSUPPORTED,
            f"'{alg}'",
        )
        for alg in ("dir", "ECDH-ES", "x", "HS256")
        for number in (1, 2)
    },
    "no key": (general([{"alg": "A128KW"}]), BAD_REQUEST, "'kid'"),
    "two keys": (
        general([{"kid": "x", "jwk": EC, "alg": "ECDH-ES+A128KW"}]),
        BAD_REQUEST,
        "'jwk'",
    ),
    "no alg": (general([{"kid": "x"}]), BAD_REQUEST, "'alg'"),
    "a jwk for another alg": (general([ONE, {"jwk": EC, "alg": "RSA-OAEP"}]), MISFIT, "RSA-OAEP"),
    "a jwk that is none": (
        general([{"jwk": {"kty": "x"}, "alg": "RSA-OAEP"}]),
        BAD_REQUEST,
        "'kty'",
    ),
    "a party where none is named": (general([ONE | {"apu": ""}]), BAD_REQUEST, "'apu'"),
    "no enc": (general([ONE], enc=None), BAD_REQUEST, "'enc'"),
    "no data": (general([ONE], data=None), BAD_REQUEST, "'data'"),
    **{
        f"{name} in the header": (general([ONE], header={name: "x"}), BAD_REQUEST, f"'{name}'")
        for name in ("alg", "kid", "enc", "epk", "apu", "apv", "iv", "tag", "zip", "crit")
    },
    "a typ twice": (general([ONE], typ="a", header={"typ": "b"}), BAD_REQUEST, "'typ'"),
}


@pytest.mark.parametrize("refused", MALFORMED.values(), ids=MALFORMED)
def test_what_is_malformed_is_refused_before_anything_is_asked(local, application, chaos, refused):
    body, answer, named = refused
    with unasked(application, chaos):
        found = local.post("/encrypt", body)
    assert found.refusal == answer
    assert named in found.body["description"]


def test_if_one_is_refused_nothing_is_encrypted(local, chaos):
    good = {"kid": local.create(**KEYS["A128KW"])["kid"], "alg": "A128KW"}
    inactive = local.create(**KEYS["A128KW"])["kid"]
    change = {"json": {"state": "deactivated"}}
    assert local.request("PATCH", f"/keys/{inactive}", **change).status == 200
    signer = local.create(kty="EC", crv="P-256", alg="ES256")["kid"]
    refusals = (
        ({"kid": str(uuid4()), "alg": "A128KW"}, NOT_FOUND),
        ({"kid": "nobody", "alg": "A128KW"}, NOT_FOUND),
        ({"kid": good["kid"], "alg": "RSA-OAEP"}, MISFIT),
        ({"kid": inactive, "alg": "A128KW"}, MISFIT),
        ({"kid": signer, "alg": "ECDH-ES+A128KW"}, MISFIT),
    )
    calls = chaos.count_own(*NAMES)
    for bad, answer in refusals:
        for recipients in ([good, bad], [bad, good], [{"jwk": EC, "alg": "ECDH-ES+A128KW"}, bad]):
            assert local.post("/encrypt", general(recipients)).refusal == answer
            assert sum(calls.values()) == 0
    local.ok("/encrypt", general([good, good]))
    assert sum(calls.values()) > 0


def test_a_header_member_must_name_every_recipient(live, keys, strangers):
    asked = {"header": {"jwk": True}}
    one = theirs(strangers)[1:]
    assert live.post("/encrypt", general(ours(keys, "RSA-OAEP") + one, **asked)).refusal == MISFIT
    made = live.ok("/encrypt", general(one, **asked))
    assert json.loads(unb64u(made["protected"]))["jwk"]["kty"] == "EC"


def test_each_key_takes_the_right(callers):
    mine, other = (api.create(**KEYS["A128KW"]) for api in (callers.alice, callers.bob))
    both = general([{"kid": key["kid"], "alg": "A128KW"} for key in (mine, other)])
    assert callers.alice.post("/encrypt", both).refusal == DENIED
    grant = {"json": {"operations": ["encrypt"]}}
    callers.bob.request("PUT", f"/keys/{other['kid']}/grants/token:alice", **grant)
    made = callers.alice.ok("/encrypt", both)
    for api, key in ((callers.alice, mine), (callers.bob, other)):
        assert api.ok("/decrypt", made) == {"kid": key["kid"], "data": DATA}


def test_the_budget_of_each_recipient_is_counted(local, application):
    fresh, spent = (local.create(**KEYS["A256GCMKW"])["kid"] for _ in range(2))
    registry = service_of(application).registry
    registry.reserve_encryptions(spent, MOST_ENCRYPTIONS, most=MOST_ENCRYPTIONS)
    recipients = [{"kid": kid, "alg": "A256GCMKW"} for kid in (fresh, spent)]
    assert local.post("/encrypt", general(recipients)).refusal == MISFIT
    local.ok("/encrypt", general(recipients[:1]))


def test_a_wrap_that_does_not_open_is_no_answer(local, monkeypatch):
    recipients = [{"kid": local.create(**KEYS["A128KW"])["kid"], "alg": "A128KW"} for _ in "12"]
    wrap = hsm.operations.cek.TokenPath.wrap
    wrapped: list[Any] = []

    def wrong(*arguments: Any) -> Any:
        wrapped.append(wrap(*arguments))
        return wrapped[-1] if len(wrapped) == 1 else wrapped[0]

    monkeypatch.setattr("hsm.operations.cek.TokenPath.wrap", wrong)
    answer = local.post("/encrypt", general(recipients))
    assert answer.status == 500


@pytest.mark.parametrize("gone", [0, 1])
def test_a_recipient_that_is_destroyed_meanwhile_is_not_found(
    local, application, monkeypatch, caplog, gone
):
    recipients = [{"kid": local.create(**KEYS["A128KW"])["kid"], "alg": "A128KW"} for _ in "12"]
    encrypt = hsm.Hsm.encrypt_for_all
    destroy = service_of(application).keyring.creation.destroy

    def late(*arguments: Any) -> Any:
        destroy(Principal(ANONYMOUS), recipients[gone]["kid"])
        return encrypt(*arguments)

    monkeypatch.setattr(hsm.Hsm, "encrypt_for_all", late)
    assert local.post("/encrypt", general(recipients)).refusal == (404, "not_found")
    assert not [one for one in caplog.records if "not on the token" in one.message]
