"""What the doctor says of a token that lacks a curve or a function."""

import ctypes
from typing import Any

import pytest
from pkcs11 import Mechanism

from app.operator.doctor.advice import ADVICE
from hsm.algorithms.kinds import ED448
from hsm.examination.examination import Examination
from tests.shared.drivers import result_of
from tests.token.test_connection import _injector, _settings
from tests.token.test_variants import template_at

CURVE_NOT_SUPPORTED = 0x140
FUNCTION_NOT_SUPPORTED = 0x54
EC_PARAMS = 0x180
EXAMINED = ("EdDSA", "Ed25519", "Ed448", "ES256", "RS256")


def opened(**changes: Any) -> Examination:
    """An examination of the token, which is well until the algorithms."""
    examination = Examination(_settings(**changes))
    looks = ("module", "token", "login", "canary", "proof")
    assert [getattr(examination, look)().symptom for look in looks] == [""] * len(looks)
    return examination


def examine() -> dict[str, Any]:
    """Examine a token that does without Ed448, and has no function that makes RSA pairs."""
    chaos = _injector()

    def generate(original: Any, *words: int) -> int:
        if ctypes.c_ulong.from_address(words[1]).value == Mechanism.RSA_PKCS_KEY_PAIR_GEN:
            return FUNCTION_NOT_SUPPORTED
        is_ed448 = template_at(*words[2:4]).get(EC_PARAMS) == ED448.ec_params
        return CURVE_NOT_SUPPORTED if is_ed448 else int(original(*words))

    chaos.replace("C_GenerateKeyPair", generate)
    examination = opened()
    found = {name: examination.algorithm(name) for name in EXAMINED}
    examination.close()
    return {name: [finding.symptom, dict(finding.facts)] for name, finding in found.items()}


@pytest.fixture(scope="module")
def found(environment: dict[str, str]) -> Any:
    return result_of(environment, examine, proves=True)


def said(symptom: str, facts: dict[str, str]) -> str:
    return ADVICE["algorithm"][symptom].seen.format(**facts)


def test_that_a_curve_is_refused_is_said(found):
    assert said(*found["EdDSA"]) == (
        "agrees with RFC 8037 A.4; not offered on Ed448: the token answers "
        "0x140 to C_GenerateKeyPair"
    )
    assert found["Ed448"][0] == "lacking"
    assert [found[name][0] for name in ("Ed25519", "ES256")] == ["", ""]


def test_a_function_that_is_missing_is_no_mechanism_to_be_switched_on(found):
    assert said(*found["RS256"]) == (
        "not offered: the token answers FunctionNotSupported to C_GenerateKeyPair"
    )
    assert "switch" not in ADVICE["algorithm"]["no_function"].advice


def test_a_curve_that_the_settings_refuse_is_no_lack_of_the_token(environment):
    found = result_of(environment, examine_fips, proves=True)
    assert found == ["in_process", "switched_off"]


def examine_fips() -> list[str]:
    """Examine a whole token in FIPS mode, which forbids X25519."""
    examination = opened(fips=True)
    symptoms = [examination.algorithm(name).symptom for name in ("ECDH-ES", "EdDSA")]
    examination.close()
    return symptoms
