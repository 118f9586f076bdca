"""Two names of one algorithm (RFC 9864): a key signs with its own, and verifies both."""

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from joserfc import jws
from joserfc.jwk import OKPKey

from tests.shared.api import Api, b64u, header, leave_out_if_lacking

# The alg "EdDSA" has a successor, "Ed25519" (RFC 9864); joserfc says so at each use.
pytestmark = pytest.mark.filterwarnings(
    "ignore:EdDSA is deprecated via RFC 9864:joserfc.errors.SecurityWarning"
)

MISFIT = (422, "crypto_failure")
PRIVATE: Mapping[str, Any] = {
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "Ed448": ed448.Ed448PrivateKey.generate(),
}
every_crv = pytest.mark.parametrize("crv", PRIVATE)


def octets(key: PrivateKeyTypes) -> str:
    assert isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return b64u(key.private_bytes_raw())


def signed(api: Api, kid: str, alg: str) -> dict[str, Any]:
    made: dict[str, Any] = api.ok("/sign", {"kid": kid, "alg": alg, "data": "AAAA"})
    return {**made, "data": "AAAA"}


@every_crv
@pytest.mark.parametrize("origin", ["made", "imported"])
def test_a_key_signs_with_its_own_name_and_one_without_with_either(
    live: Api, crv: str, origin: str
) -> None:
    material = {"d": octets(PRIVATE[crv])} if origin == "imported" else {}
    for alg, names in {"EdDSA": {"EdDSA"}, crv: {crv}, None: {"EdDSA", crv}}.items():
        key = live.create(kty="OKP", crv=crv, alg=alg, **material)
        assert key.get("alg") == alg
        for name in ("EdDSA", crv):
            body = {"kid": key["kid"], "alg": name, "data": "AAAA"}
            if name in names:
                assert live.ok("/verify", signed(live, key["kid"], name))["valid"] is True
            else:
                assert live.post("/sign", body).refusal == MISFIT
        jwk = live.get(f"/keys/{key['kid']}").body["jwk"]
        assert jwk.get("alg") == (alg if alg else None)


@every_crv
def test_a_key_of_either_name_verifies_both(live: Api, crv: str) -> None:
    private = OKPKey.import_key(
        {"kty": "OKP", "crv": crv, "d": octets(PRIVATE[crv]), "x": _x(PRIVATE[crv])}
    )
    for made_as in ("EdDSA", crv, None):
        kid = live.create(kty="OKP", crv=crv, alg=made_as, d=octets(PRIVATE[crv]))["kid"]
        jwk = {"kty": "OKP", "crv": crv, "x": _x(PRIVATE[crv]), "alg": made_as}
        for name in ("EdDSA", crv):
            compact = jws.serialize_compact(
                {"alg": name, "kid": kid}, b"payload", private, algorithms=[name]
            )
            assert live.ok("/verify", {"jws": compact})["valid"] is True
            assert live.ok("/verify", {"jws": compact, "jwk": jwk})["valid"] is True
            other = f"{compact[:-8]}AAAAAAAA"
            assert live.ok("/verify", {"jws": other})["valid"] is False


def _x(key: Any) -> str:
    return b64u(key.public_key().public_bytes_raw())


def test_a_name_that_says_another_curve_verifies_nothing(live: Api) -> None:
    key = live.create(kty="OKP", crv="Ed25519")
    jws_ = signed(live, key["kid"], "EdDSA")
    jwk = live.get(f"/keys/{key['kid']}").body["jwk"]
    renamed = {**jws_, "protected": header(alg="Ed448", kid=key["kid"])}
    assert live.post("/verify", renamed).refusal == MISFIT
    assert live.post("/verify", {**renamed, "jwk": jwk}).refusal == MISFIT
    assert live.post("/verify", {**jws_, "jwk": {**jwk, "alg": "Ed448"}}).refusal == MISFIT


def test_points_of_small_order_are_no_keys_on_ed448(live: Api, lacks: frozenset[str]) -> None:
    leave_out_if_lacking(lacks, "Ed448")
    for x in (bytes(57), b"\1" + bytes(56), b"\xff" * 57):
        jwk = {"kty": "OKP", "crv": "Ed448", "x": b64u(x)}
        protected = header(alg="Ed448")
        body = {"protected": protected, "data": "", "signature": b64u(bytes(114)), "jwk": jwk}
        assert live.post("/verify", body).refusal == (400, "bad_request")
