"""Signatures without a header, over data or over a digest of it; and random numbers."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

import hsm
from scripts.tokens import COUNTED, digests_signed_by
from tests.shared.api import Api, b64u, leave_out_if_lacking, unb64u
from tests.shared.bodies import body_of, free_body_of
from tests.shared.chains import public_key
from tests.shared.injector import Injector

BAD_REQUEST = (400, "bad_request")
CRYPTO_FAILURE = (422, "crypto_failure")
DATA = b"a file that is too large to be sent"
# No packaged SoftHSM has ML-DSA.
SIGNATURES = [alg for alg, row in hsm.SIGNATURES.items() if row.kind.name != "ML-DSA"]
RSA = [alg for alg in SIGNATURES if hsm.SIGNATURES[alg].kind.name == "RSA"]
DIGESTIBLE = [alg for alg in SIGNATURES if hsm.SIGNATURES[alg].digest_mechanism]


def bits_of(alg: str) -> str:
    """The bits of the hash: ES256K ends with its curve."""
    return alg.rstrip("K")[-3:]


def digest_of(alg: str, data: bytes = DATA) -> bytes:
    return hashlib.new(f"sha{bits_of(alg)}", data).digest()


def verify(public: Any, alg: str, signature: bytes, data: bytes = DATA) -> None:
    """Raise ``InvalidSignature`` unless another library takes it for one over ``data``."""
    if isinstance(public, rsa.RSAPublicKey):
        hashed = getattr(hashes, f"SHA{bits_of(alg)}")()
        pss = padding.PSS(padding.MGF1(hashed), hashed.digest_size)
        public.verify(signature, data, pss if alg[0] == "P" else padding.PKCS1v15(), hashed)
    elif isinstance(public, ec.EllipticCurvePublicKey):
        half = len(signature) // 2
        r, s = int.from_bytes(signature[:half]), int.from_bytes(signature[half:])
        hashed = getattr(hashes, f"SHA{bits_of(alg)}")()
        public.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashed))
    else:
        public.verify(signature, data)


def key(api: Api, alg: str, **members: Any) -> str:
    kid: str = api.shared(**free_body_of(alg), **members)["kid"]
    return kid


@pytest.mark.parametrize("alg", SIGNATURES)
def test_data_is_signed_as_it_is(local, alg) -> None:
    kid = key(local, alg)
    made = local.ok(f"/keys/{kid}/sign", {"alg": alg, "data": b64u(DATA)})
    assert list(made.items())[:2] == [("kid", kid), ("alg", alg)]
    signature = unb64u(made["signature"])
    verify(public_key(local, kid), alg, signature)
    with pytest.raises(InvalidSignature):
        verify(public_key(local, kid), alg, signature, b"other")


@pytest.mark.parametrize("alg", SIGNATURES)
def test_an_empty_data_is_data(local, alg) -> None:
    kid = key(local, alg)
    signature = local.ok(f"/keys/{kid}/sign", {"alg": alg, "data": ""})["signature"]
    verify(public_key(local, kid), alg, unb64u(signature), b"")


@pytest.mark.parametrize("alg", DIGESTIBLE)
@pytest.mark.parametrize("bound", [True, False])
def test_a_digest_gives_a_signature_over_what_it_is_of(local, lacks, alg, bound) -> None:
    leave_out_if_lacking(lacks, digests_signed_by(alg))
    members = body_of(alg) if bound else {**body_of(alg), "alg": None}
    kid = local.shared(**members, digest=True)["kid"]
    made = local.ok(f"/keys/{kid}/sign", {"alg": alg, "digest": b64u(digest_of(alg))})
    verify(public_key(local, kid), alg, unb64u(made["signature"]))
    jws = local.ok("/sign", {"kid": kid, "alg": alg, "data": b64u(DATA)})
    assert local.ok("/verify", jws | {"data": b64u(DATA)})["valid"]


def test_an_imported_rsa_key_signs_digests_if_it_is_told(local) -> None:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    values = {"n": numbers.public_numbers.n, "e": numbers.public_numbers.e, "d": numbers.d}
    sizes = {name: (value.bit_length() + 7) // 8 for name, value in values.items()}
    members = {name: b64u(values[name].to_bytes(sizes[name])) for name in values}
    created = local.create(kty="RSA", alg="PS384", digest=True, **members)
    path = f"/keys/{created['kid']}/sign"
    made = local.ok(path, {"alg": "PS384", "digest": b64u(digest_of("PS384"))})
    verify(numbers.public_numbers.public_key(), "PS384", unb64u(made["signature"]))


def test_a_file_signed_by_its_digest_is_verified_by_openssl(local, lacks, tmp_path: Path) -> None:
    leave_out_if_lacking(lacks, digests_signed_by("RS256"))
    kid = key(local, "RS256", digest=True)
    made = local.ok(f"/keys/{kid}/sign", {"alg": "RS256", "digest": b64u(digest_of("RS256"))})
    (tmp_path / "file").write_bytes(DATA)
    (tmp_path / "signature").write_bytes(unb64u(made["signature"]))
    (tmp_path / "key.pem").write_bytes(local.get(f"/keys/{kid}/public.pem").content)
    command = [
        "openssl",
        "dgst",
        "-sha256",
        "-verify",
        "key.pem",
        "-signature",
        "signature",
        "file",
    ]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "Verified OK\n"


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_what_a_key_may_do_with_digests_is_said(local, alg) -> None:
    told = local.shared(**free_body_of(alg), digest=True)
    assert told["digest"] is True
    assert local.get(f"/keys/{told['kid']}").body["digest"] is True
    for digest in ({}, {"digest": False}, {"digest": None}):
        plain = local.shared(**free_body_of(alg), **digest)
        assert "digest" not in plain
        assert "digest" not in local.get(f"/keys/{plain['kid']}").body


# --- Refusals ---


MEMBERS_OF_OTHERS = [{"message_type": "DIGEST"}, {"prehashed": True}]


@pytest.mark.parametrize("alg", ["ES256", "EdDSA"])
@pytest.mark.parametrize("member", MEMBERS_OF_OTHERS)
def test_a_digest_that_other_services_take_as_data_is_not_hashed_again(local, alg, member) -> None:
    path = f"/keys/{key(local, alg)}/sign"
    body = {"alg": alg, "data": b64u(hashlib.sha256(DATA).digest())}
    assert local.post(path, body | {"message_type": "RAW", "prehashed": False}).status == 200
    answer = local.post(path, body | member)
    assert answer.refusal == BAD_REQUEST
    assert f"'{next(iter(member))}'" in answer.body["description"]
    assert "'digest'" in answer.body["description"]


@pytest.mark.parametrize("member", MEMBERS_OF_OTHERS)
def test_beside_a_digest_their_members_say_what_is_so(local, member) -> None:
    kid = key(local, "ES256")
    body = {"alg": "ES256", "digest": b64u(digest_of("ES256"))}
    made = local.ok(f"/keys/{kid}/sign", body | member)
    verify(public_key(local, kid), "ES256", unb64u(made["signature"]))


@pytest.mark.parametrize("alg", RSA)
@pytest.mark.parametrize("digest", [{}, {"digest": False}])
def test_an_rsa_key_that_was_not_told_signs_no_digest(local, alg, digest, chaos: Injector) -> None:
    kid = key(local, alg, **digest)
    signed = chaos.count_own("C_Sign")
    refused = local.post(f"/keys/{kid}/sign", {"alg": alg, "digest": b64u(digest_of(alg))})
    assert refused.refusal == CRYPTO_FAILURE
    assert not signed["C_Sign"]


def test_eddsa_signs_no_digest(local) -> None:
    kid = key(local, "EdDSA")
    refused = local.post(f"/keys/{kid}/sign", {"alg": "EdDSA", "digest": b64u(bytes(32))})
    assert refused.refusal == CRYPTO_FAILURE
    assert "no digest" in refused.body["description"]


@pytest.mark.parametrize("alg", DIGESTIBLE)
@pytest.mark.parametrize("change", [-1, 1, -16, 16])
def test_a_digest_of_another_length_is_refused(local, alg, change) -> None:
    kid = key(local, alg, digest=True)
    size = len(digest_of(alg))
    for digest in (bytes(size + change), b""):
        refused = local.post(f"/keys/{kid}/sign", {"alg": alg, "digest": b64u(digest)})
        assert refused.refusal == BAD_REQUEST
        assert f"must be {size} bytes long" in refused.body["description"]


WRONG_BODIES = {
    "of both": ({"data": "AAAA", "digest": b64u(bytes(32))}, BAD_REQUEST),
    "of neither": ({}, BAD_REQUEST),
    "without alg": ({"alg": None, "data": "AAAA"}, BAD_REQUEST),
    "of a number": ({"data": 1}, BAD_REQUEST),
    "in bad base64url": ({"data": "AA="}, BAD_REQUEST),
    "of another alg": ({"alg": "ES384", "data": "AAAA"}, CRYPTO_FAILURE),
    "of a MAC": ({"alg": "HS256", "data": "AAAA"}, (422, "unsupported_algorithm")),
    "of none": ({"alg": "none", "data": "AAAA"}, (422, "unsupported_algorithm")),
}


@pytest.mark.parametrize(("members", "answer"), WRONG_BODIES.values(), ids=WRONG_BODIES)
def test_a_wrong_body_is_refused(local, members, answer, chaos: Injector) -> None:
    kid = key(local, "ES256")
    signed = chaos.count_own("C_Sign")
    assert local.post(f"/keys/{kid}/sign", {"alg": "ES256", **members}).refusal == answer
    assert not signed["C_Sign"]


def test_a_key_that_may_not_sign_now_signs_nothing_raw(local) -> None:
    pair = local.create(**body_of("ES256"))
    body = {"alg": "ES256", "data": ""}
    assert local.post(f"/keys/{pair['kid_public']}/sign", body).refusal == CRYPTO_FAILURE
    change = {"json": {"state": "deactivated"}}
    assert local.request("PATCH", f"/keys/{pair['kid']}", **change).status == 200
    assert local.post(f"/keys/{pair['kid']}/sign", body).refusal == CRYPTO_FAILURE
    assert local.delete(pair["kid"]).status == 204
    assert local.post(f"/keys/{pair['kid']}/sign", body).refusal == (404, "not_found")


@pytest.mark.parametrize(
    "members",
    [
        {"kty": "oct", "alg": "HS256"},
        {"kty": "oct", "alg": "A256GCM"},
        {"kty": "RSA", "alg": "RSA-OAEP"},
        {"kty": "OKP", "alg": "EdDSA"},
        {"kty": "EC", "crv": "P-256", "alg": "ECDH-ES"},
    ],
)
def test_a_key_that_can_sign_no_digest_is_not_made_for_it(local, members) -> None:
    refused = local.post("/keys", {**members, "digest": True})
    assert refused.refusal == BAD_REQUEST
    assert "'digest'" in refused.body["description"]


@pytest.mark.parametrize("digest", [1, "true", [], {}])
def test_whether_it_signs_digests_is_true_or_false(local, digest) -> None:
    refused = local.post("/keys", {"kty": "RSA", "alg": "RS256", "digest": digest})
    assert refused.body["description"] == "Field 'digest' must be true or false"


# --- Random numbers ---


@pytest.mark.parametrize("size", [1, 16, 1024])
def test_as_many_random_bytes_come_as_are_asked_for(local, lacks, size, chaos: Injector) -> None:
    generated = chaos.count_own("C_GenerateRandom")
    data = {local.ok("/random", {"bytes": size})["data"] for _ in range(2)}
    assert {len(unb64u(one)) for one in data} == {size}
    assert size == 1 or len(data) == 2
    assert generated["C_GenerateRandom"] == 2 or COUNTED in lacks


@pytest.mark.parametrize("size", [0, -1, 1025, 2**70, "16", 16.0, True, None, []])
def test_a_wrong_number_of_random_bytes_is_refused(local, size) -> None:
    assert local.post("/random", {"bytes": size}).refusal == BAD_REQUEST
