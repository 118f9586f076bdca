"""One odd answer in one trial is no more than a reason against what was tried."""

import ctypes
import threading
from functools import partial
from typing import Any

import pytest
from pkcs11 import Attribute, Mechanism, ObjectClass, PKCS11Error

import hsm
from app.service import service_of
from hsm import Hsm, KeySpec, Observer
from hsm.cryptoki.attributes import Templates
from hsm.cryptoki.faults import name_of
from hsm.life import refusal
from hsm.life.proof import Proof
from hsm.life.proof_cache import ProofCache
from hsm.life.token import Policy, Token
from hsm.life.work import Errand
from scripts.throwaway import LABEL, make_token
from tests.shared import injector
from tests.shared.drivers import result_of
from tests.shared.injector import Injector
from tests.shared.refs import new_ref
from tests.shared.tokens import require
from tests.token.test_connection import ES256, _injector, _outcome, _settings, _started, explain
from tests.token.test_variants import TEMPLATE_INCONSISTENT, is_true, template_at

VENDOR_DEFINED = 0x80000001
OAEP = KeySpec(kty="RSA", alg="RSA-OAEP", bits=2048)
VERBS = ("Encrypt", "Decrypt", "Sign", "Verify")
FUNCTIONS = (
    *(f"C_{verb}{step}" for verb in VERBS for step in ("Init", "")),
    *(f"C_{verb}Key" for verb in ("Generate", "Wrap", "Unwrap", "Derive", "Digest")),
)
POLICY = Policy(
    plaintext_bytes=1_572_864,
    fips=False,
    process_allowed=True,
    opted_in=frozenset(),
    announce_change=lambda: None,
    unwrapped_keys=1,
    observer=Observer(),
)


class Trials:
    """The boot proof of the token of this process, again; ``known`` is what it has found."""

    def __init__(self, of: Hsm) -> None:
        token = of._connection.token
        self._parts = (token.pool, Templates(), token.canary, POLICY)
        self.known: dict[str, str | None] = {}
        self.before = self.offers(self.known)

    def offers(self, known: dict[str, str | None]) -> Any:
        """What is offered; tried is what is not ``known``."""
        proof_cache = ProofCache(None, self._parts[0].token)
        proof_cache._known = known
        return Token.prove(*self._parts, proof_cache).offers


@pytest.fixture(scope="module")
def trials(application: Any) -> Trials:
    return Trials(service_of(application).hsm)


@pytest.fixture
def odd(chaos: Injector, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor's code from each function, as long as something is being tried in this thread."""
    tried = threading.local()

    def refuse(original: Any, *words: int) -> int:
        return VENDOR_DEFINED if getattr(tried, "now", False) else int(original(*words))

    def trying(attempt: Any) -> Any:
        def tries(*arguments: Any) -> None:
            tried.now = True
            try:
                attempt(*arguments)
            finally:
                tried.now = False

        return tries

    monkeypatch.setattr("hsm.life.refusal._PAUSE_SECONDS", 0)
    for name in FUNCTIONS:
        chaos.replace(name, refuse)
    for name in ("attempt", "attempt_transport"):
        monkeypatch.setattr(Proof, name, trying(getattr(Proof, name)))


def test_a_vendors_code_in_one_trial_refuses_what_was_tried_and_nothing_else(trials, odd):
    reason = f"the token answers {VENDOR_DEFINED:#x}"
    of_algorithms = (name for name in trials.known if name.split()[0] in hsm.ALGORITHMS)
    good = [name for name in of_algorithms if trials.known[name] is None]
    assert len(good) > 40
    for name in good:
        offers = trials.offers(
            {other: trials.known[other] for other in trials.known.keys() - {name}}
        )
        alg, *rest = name.split()
        assert {other for other in offers if offers[other] != trials.before[other]} == {alg}
        found = next(
            (offers[alg].by_enc[enc] for enc in rest if enc in hsm.CONTENT_ENCRYPTIONS), offers[alg]
        )
        crv = next((crv for crv in rest if crv in found.refused_crvs), None)
        assert found.refusal(crv) == reason


def test_ed448_has_parameters_where_the_token_wants_them(trials, chaos):
    """PKCS#11 v3.0 §2.3.14. This one wants them on Ed25519 too, where they mean Ed25519ctx."""

    def want_params(original: Any, *words: int) -> int:
        mechanism, _, param_bytes = (ctypes.c_ulong * 3).from_address(words[1])
        lacks_them = mechanism == Mechanism.EDDSA and not param_bytes
        return injector.MECHANISM_PARAM_INVALID if lacks_them else int(original(*words))

    for function in ("C_SignInit", "C_VerifyInit"):
        chaos.replace(function, want_params)
    offers = trials.offers(
        {name: reason for name, reason in trials.known.items() if not name.startswith("Ed")}
    )
    refused = "the token answers MechanismParamInvalid"
    assert offers["Ed448"] == trials.before["Ed448"]
    assert offers["EdDSA"].refused_crvs == {"Ed25519": refused}
    assert offers["Ed25519"].reason == refused


def answer_oddly(value: int) -> dict[str, Any]:
    """Have C_SignInit answer ``value`` to ECDSA from the start."""
    chaos = _injector()

    def refuse(original: Any, *words: int) -> int:
        is_ecdsa = ctypes.c_ulong.from_address(words[1]).value == 0x1041
        return value if is_ecdsa else int(original(*words))

    chaos.replace("C_SignInit", refuse)
    refusal._PAUSE_SECONDS = 0  # type: ignore[misc]  # it answers so for ever
    token, key = _started(), new_ref(ES256)
    offers = token.offers()
    return {
        "refused": {name: offers[name].reason for name in offers if not offers[name].is_offered},
        "used": _outcome(lambda: token.generate(key)),
        "destroyed": _outcome(lambda: token.destroy(key)),
    }


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (VENDOR_DEFINED, "0x80000001"),
        (injector.DEVICE_ERROR, "DeviceError"),
        pytest.param(injector.USER_NOT_LOGGED_IN, "UserNotLoggedIn", marks=pytest.mark.long),
        pytest.param(0x31, "DeviceMemory", marks=pytest.mark.long),
    ],
)
def test_a_token_is_ready_whatever_it_answers_in_one_trial(environment, value, named):
    found = result_of(environment, answer_oddly, value, proves=True)
    reasons = {alg: found["refused"].get(alg) for alg in ("ES256", "ES384", "ES512")}
    assert reasons == dict.fromkeys(reasons, f"the token answers {named}")
    assert found["used"] == found["destroyed"] == "done"
    assert {"RS256", "HS256", "A256GCM", "ECDH-ES", "EdDSA"}.isdisjoint(found["refused"])


def make_no_aes_keys() -> dict[str, Any]:
    """Have no AES key made from the start, of which a token may do nothing but the rest."""
    chaos = _injector()

    def refuse(original: Any, *words: int) -> int:
        is_aes = ctypes.c_ulong.from_address(words[1]).value == Mechanism.AES_KEY_GEN
        return injector.MECHANISM_INVALID if is_aes else int(original(*words))

    chaos.replace("C_GenerateKey", refuse)
    token, key = _started(), new_ref(ES256)
    offers = token.offers()
    return {
        "offered": [name for name in offers if offers[name].is_offered],
        "reason": offers["RSA-OAEP"].reason,
        "used": _outcome(lambda: token.generate(key)),
        "destroyed": _outcome(lambda: token.destroy(key)),
    }


def test_a_token_that_makes_no_aes_keys_does_what_needs_none(tmp_path):
    found = result_of(make_token(tmp_path / "state"), make_no_aes_keys, proves=True)
    assert {"RS256", "ES256", "HS256"} <= set(found["offered"])
    assert not {*hsm.CONTENT_ENCRYPTIONS, *hsm.KEY_MANAGEMENTS} & set(found["offered"])
    assert found["reason"] == "the token answers MechanismInvalid"
    assert found["used"] == found["destroyed"] == "done"


def make_no_pairs_that_decrypt() -> dict[str, Any]:
    """Refuse RSA pairs that decrypt from the start, as a token may that unwraps by itself."""
    chaos = _injector()

    def refuse(original: Any, *words: int) -> int:
        decrypts = is_true(template_at(*words[4:6]), Attribute.DECRYPT)
        return TEMPLATE_INCONSISTENT if decrypts else int(original(*words))

    chaos.replace("C_GenerateKeyPair", refuse)
    token, key = _started(), new_ref(OAEP)
    token.generate(key)
    made = token.encrypt(key, "RSA-OAEP", "A256GCM", b"plain", lambda _: b"aad")
    parts = made.encrypted_key, made.sealed
    offers = token.offers()
    found = {
        "offered": [name for name in offers if offers[name].is_offered],
        "reason": offers["RSA-OAEP-256"].reason,
        "opened": token.decrypt(key, "RSA-OAEP", "A256GCM", *parts, b"aad").decode(),
        "usages": token._connection.perform(Errand(verb=partial(_usages, key))),
    }
    token.destroy(key)
    return found


def _usages(key: hsm.KeyRef, _token: Any, session: Any) -> list[bool]:
    named = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: key.kid.bytes}
    (found,) = session.find(named)
    return [found[usage] for usage in (Attribute.UNWRAP, Attribute.DECRYPT)]


def test_a_token_that_makes_no_rsa_pairs_that_decrypt_signs_and_unwraps_by_itself(environment):
    found = result_of(environment, make_no_pairs_that_decrypt, proves=True)
    assert {"RS256", "PS512", "RSA-OAEP", "ES256", "ECDH-ES"} <= set(found["offered"])
    assert "RSA-OAEP-256" not in found["offered"]
    assert found["reason"] == "the token answers TemplateInconsistent"
    assert found["opened"] == "plain"
    assert found["usages"] == [True, False]


def other_tokens_do_not_answer(label: str) -> str:
    """Start beside slots that are out of order, all but that of the token."""
    own = f"{_settings().token_label:32}".encode()

    def look(original: Any, slot: int, info: int, *words: int) -> int:
        answer = int(original(slot, info, *words))
        return answer if ctypes.string_at(info, len(own)) == own else injector.DEVICE_ERROR

    _injector().replace("C_GetTokenInfo", look)
    return explain({"token_label": label})


@pytest.mark.parametrize(
    ("label", "reason"),
    [(LABEL, "done: None"), ("another", "TokenUnavailable: the token answers DeviceError")],
)
def test_a_token_is_found_beside_others_that_do_not_answer(environment, label, reason):
    assert result_of(environment, other_tokens_do_not_answer, label) == reason


def initialised_without_parameters() -> str:
    """Start with a library that wants parameters, and gets none."""
    return explain({})


def test_what_the_library_answers_when_it_does_not_initialise_is_said(tmp_path):
    require("nss")
    reason = result_of(make_token(tmp_path / "state", "nss"), initialised_without_parameters)
    assert reason == "TokenUnavailable: the PKCS#11 module answers 0x7 to C_Initialize"


def test_an_answer_without_class_or_number_is_named_by_what_is_said_of_it():
    assert (
        name_of(PKCS11Error("Buffer was too small. Should never see this."))
        == "Buffer was too small"
    )
    assert name_of(PKCS11Error("Unmapped error code 0x91")) == "0x91"
    assert name_of(PKCS11Error()) == "PKCS11Error"
