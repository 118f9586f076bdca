"""A test is left out for what the token is known to lack, and for nothing else."""

from typing import Any

import pytest

from scripts.tokens import TOKENS
from tests.conftest import _lacking
from tests.shared.api import Answer, NotOffered, leave_out_if_lacking, require_offered


@pytest.fixture
def nss() -> Any:
    """The options of a run on NSS."""

    class Options:
        def getoption(self, _name: str) -> str:
            return "nss"

    return Options()


def refused(alg: str) -> Answer:
    """What the service says of an algorithm that the token lacks."""
    description = f"'{alg}' is not available: the token answers MechanismInvalid"
    return Answer(422, {"error": "unsupported_algorithm", "description": description}, {}, b"")


ON_X25519 = {"alg": "ECDH-ES", "jwk": {"kty": "OKP", "crv": "X25519"}}


@pytest.mark.parametrize(("alg", "body"), [("EdDSA", {}), ("ECDH-ES", ON_X25519)])
def test_what_is_known_to_be_lacking_is_left_out(nss, alg, body):
    with pytest.raises(pytest.skip.Exception), _lacking(nss):
        require_offered(refused(alg), body)


@pytest.mark.parametrize(
    ("alg", "body"), [("ES256", {}), ("ECDH-ES", {"jwk": {"kty": "EC", "crv": "P-256"}})]
)
def test_what_is_not_known_to_be_lacking_fails(nss, alg, body):
    with pytest.raises(NotOffered), _lacking(nss):
        require_offered(refused(alg), body)


def test_what_a_token_has_is_never_left_out():
    with pytest.raises(NotOffered):
        leave_out_if_lacking(TOKENS["nss"].lacks, "CKA_COPYABLE")
    leave_out_if_lacking(TOKENS["softhsm"].lacks, "CKA_COPYABLE")
