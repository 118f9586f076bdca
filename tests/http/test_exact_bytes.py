"""What is on the wire, byte by byte (wire contract §2, §3)."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import hsm
from app.service import service_of
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.bodies import ML_DSA, RSA_TRANSPORTS
from tests.shared.sealing import CEK_BYTES, IV_BYTES, TAG_BYTES, ciphertext_bytes, seal

# No packaged SoftHSM has ML-DSA.
SIGNATURES = [alg for alg in hsm.SIGNATURES if alg not in ML_DSA]
RSA_SIGNATURES = [alg for alg in SIGNATURES if hsm.SIGNATURES[alg].kind.name == "RSA"]
SIGNATURE_BYTES = {
    "ES256": 64,
    "ES384": 96,
    "ES512": 132,
    "ES256K": 64,
    "EdDSA": 64,
    "Ed25519": 64,
    "Ed448": 114,
}
MAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
LENGTHS = (0, 1, 15, 16, 17, 1000)

every_enc = pytest.mark.parametrize("enc", hsm.CONTENT_ENCRYPTIONS)
every_transport = pytest.mark.parametrize("alg", RSA_TRANSPORTS)
every_mac = pytest.mark.parametrize("alg", hsm.MACS)


@pytest.fixture(scope="module")
def pairs(live: Api) -> dict[str, dict[str, Any]]:
    """A generated pair that may do all of its kind, by the name of the kind."""
    bodies = {
        "RSA": {"kty": "RSA"},
        "P-256": {"kty": "EC", "crv": "P-256"},
        "P-384": {"kty": "EC", "crv": "P-384"},
        "P-521": {"kty": "EC", "crv": "P-521"},
        "secp256k1": {"kty": "EC", "crv": "secp256k1"},
        "Ed25519": {"kty": "OKP"},
        "Ed448": {"kty": "OKP", "crv": "Ed448"},
    }
    return {name: live.shared(**body) for name, body in bodies.items()}


def pair_for(pairs: dict[str, dict[str, Any]], alg: str) -> dict[str, Any]:
    row = hsm.SIGNATURES[alg]
    return pairs[row.curves[0].crv if row.curves else row.kind.name]


def secret(api: Api, alg: str, size: int) -> tuple[str, bytes]:
    """Import a key known to the test; return its kid and itself."""
    key = bytes(range(size))
    return api.create(kty="oct", alg=alg, k=b64u(key))["kid"], key


def encrypt(api: Api, kid: str, alg: str, enc: str, **members: Any) -> dict[str, str]:
    request = {"kid": kid, "alg": alg, "enc": enc, "data": b64u("data")}
    return api.ok("/encrypt", request | members)


def sizes(message: dict[str, str]) -> dict[str, int]:
    return {
        name: len(unb64u(message[name])) for name in message if name not in ("protected", "aad")
    }


# --- Headers ---


@pytest.mark.parametrize("alg", SIGNATURES)
def test_a_jws_header_is_alg_and_public_kid_without_whitespace(
    alg: str, live: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    pair = pair_for(pairs, alg)
    protected = live.ok("/sign", {"kid": pair["kid"], "alg": alg, "data": ""})["protected"]
    expected = f'{{"alg":"{alg}","kid":"{pair["kid_public"]}"}}'
    assert unb64u(protected) == expected.encode()


def test_a_jws_header_names_the_private_kid_of_an_imported_pair(live: Api) -> None:
    kid = live.create(**ED25519_JWK)["kid"]
    protected = live.ok("/sign", {"kid": kid, "alg": "EdDSA", "data": ""})["protected"]
    assert unb64u(protected) == f'{{"alg":"EdDSA","kid":"{kid}"}}'.encode()


@every_enc
def test_a_direct_jwe_header_is_alg_enc_and_the_kid_of_the_request(enc: str, live: Api) -> None:
    kid = live.create(kty="oct", alg=enc)["kid"]
    protected = encrypt(live, kid, "dir", enc)["protected"]
    assert unb64u(protected) == f'{{"alg":"dir","enc":"{enc}","kid":"{kid}"}}'.encode()


@every_transport
@pytest.mark.parametrize("named", ["kid", "kid_public"])
def test_a_transport_jwe_header_names_the_private_kid_whichever_was_given(
    named: str, alg: str, live: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    pair = pairs["RSA"]
    protected = encrypt(live, pair[named], alg, "A256GCM")["protected"]
    expected = f'{{"alg":"{alg}","enc":"A256GCM","kid":"{pair["kid"]}"}}'
    assert unb64u(protected) == expected.encode()


def test_decrypt_and_verify_echo_the_kid_of_the_header_and_mac_that_of_the_request(
    live: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    pair = pairs["RSA"]
    jwe = encrypt(live, pair["kid_public"], "RSA-OAEP", "A128GCM")
    assert live.ok("/decrypt", jwe)["kid"] == pair["kid"]
    jws = live.ok("/sign", {"kid": pair["kid"], "alg": "PS256", "data": ""}) | {"data": ""}
    assert live.ok("/verify", jws) == {"kid": pair["kid_public"], "valid": True}
    private = header(alg="PS256", kid=pair["kid"])
    assert live.ok("/verify", jws | {"protected": private}) == {"kid": pair["kid"], "valid": False}
    kid = live.create(kty="oct", alg="HS256")["kid"]
    assert live.ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})["kid"] == kid


# --- Sizes ---


def content_sizes(enc: str, length: int) -> dict[str, int]:
    ciphertext = ciphertext_bytes(enc, length)
    return {"iv": IV_BYTES[enc], "ciphertext": ciphertext, "tag": TAG_BYTES[enc]}


@every_enc
def test_a_direct_jwe_has_the_sizes_of_its_enc_and_no_encrypted_key(enc: str, live: Api) -> None:
    kid = live.create(kty="oct", alg=enc)["kid"]
    for length in LENGTHS:
        jwe = encrypt(live, kid, "dir", enc, data=b64u(bytes(length)))
        assert sizes(jwe) == {"encrypted_key": 0} | content_sizes(enc, length)


@every_transport
@every_enc
def test_a_transport_jwe_has_an_encrypted_key_as_long_as_the_modulus(
    enc: str, alg: str, live: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    for length in LENGTHS:
        jwe = encrypt(live, pairs["RSA"]["kid"], alg, enc, data=b64u(bytes(length)))
        assert sizes(jwe) == {"encrypted_key": 256} | content_sizes(enc, length)


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_rsa_output_is_as_long_as_the_modulus_for_every_size_and_alg(bits: int, live: Api) -> None:
    kid = live.create(kty="RSA", bits=bits)["kid"]
    for alg in RSA_SIGNATURES:
        jws = live.ok("/sign", {"kid": kid, "alg": alg, "data": ""})
        assert len(unb64u(jws["signature"])) == bits // 8
        assert live.ok("/verify", jws | {"data": ""})["valid"]
    for alg in RSA_TRANSPORTS:
        jwe = encrypt(live, kid, alg, "A256GCM")
        assert len(unb64u(jwe["encrypted_key"])) == bits // 8
        assert live.ok("/decrypt", jwe) == {"kid": kid, "data": b64u("data")}


@pytest.mark.parametrize(("alg", "size"), SIGNATURE_BYTES.items())
def test_an_elliptic_signature_always_has_the_length_of_its_alg(
    alg: str, size: int, local: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    # About one in 128 has an R or S that begins with a zero byte, which a bare integer would drop.
    body = {"kid": pair_for(pairs, alg)["kid"], "alg": alg}
    for tens in range(30):  # what one batch may take is bounded
        bodies = [body | {"data": b64u(f"{tens}{number}")} for number in range(10)]
        requests = {"requests": [{"op": "sign", "body": body} for body in bodies]}
        for answer in local.ok("/batch", requests)["responses"]:
            assert len(unb64u(answer["body"]["signature"])) == size


@every_mac
def test_a_mac_is_as_long_as_the_hash(alg: str, live: Api) -> None:
    kid = live.create(kty="oct", alg=alg)["kid"]
    mac = live.ok("/mac", {"kid": kid, "alg": alg, "data": ""})["mac"]
    assert len(unb64u(mac)) == MAC_BYTES[alg]


# --- What is authenticated ---


def is_sealed(enc: str, key: bytes, jwe: dict[str, str], aad: str) -> bool:
    """Tell whether another implementation makes the same of "data" with ``aad``."""
    sealed = seal(enc, key, unb64u(jwe["iv"]), b"data", aad.encode())
    return sealed._asdict() == {name: unb64u(jwe[name]) for name in sealed._fields}


@pytest.mark.parametrize("aad", ["", "AA", b64u(b"\xfb\xff\xfe"), b64u(bytes(5000))])
@every_enc
def test_the_aad_is_the_header_a_dot_and_the_aad_as_sent(enc: str, aad: str, live: Api) -> None:
    kid, key = secret(live, enc, CEK_BYTES[enc])
    jwe = encrypt(live, kid, "dir", enc, aad=aad)
    assert jwe["aad"] == aad
    assert is_sealed(enc, key, jwe, f"{jwe['protected']}.{aad}")
    assert not is_sealed(enc, key, jwe, jwe["protected"])


@pytest.mark.parametrize("absent", [{}, {"aad": None}])
def test_without_aad_the_header_alone_is_authenticated(absent: dict[str, None], live: Api) -> None:
    kid, key = secret(live, "A128GCM", 16)
    jwe = encrypt(live, kid, "dir", "A128GCM", **absent)
    assert "aad" not in jwe
    assert is_sealed("A128GCM", key, jwe, jwe["protected"])


def test_an_empty_aad_and_none_are_not_the_same(live: Api) -> None:
    kid = live.create(kty="oct", alg="A256GCM")["kid"]
    without = encrypt(live, kid, "dir", "A256GCM")
    empty = encrypt(live, kid, "dir", "A256GCM", aad="")
    assert live.ok("/decrypt", without | {"aad": None})["data"] == b64u("data")
    assert live.ok("/decrypt", empty)["data"] == b64u("data")
    refused = (422, "decryption_failed")
    assert live.post("/decrypt", without | {"aad": ""}).refusal == refused
    assert live.post("/decrypt", empty | {"aad": None}).refusal == refused


FOREIGN_HEADERS = {
    "whitespace": '{{ "alg" : "{alg}",\r\n "enc" : "A256GCM", "kid" : "{kid}" }}\n',
    "other order": '{{"kid":"{kid}","enc":"A256GCM","alg":"{alg}"}}',
    "more members": '{{"typ":"JOSE","x":[1.0,null],"alg":"{alg}","enc":"A256GCM","kid":"{kid}"}}',
    "escapes": '{{"\\u0061lg":"{alg}","enc":"A256\\u0047CM","kid":"{kid}"}}',
    "not ASCII": '{{"x":"\u20ac","alg":"{alg}","enc":"A256GCM","kid":"{kid}"}}',
}
every_foreign_header = pytest.mark.parametrize(
    "text", FOREIGN_HEADERS.values(), ids=FOREIGN_HEADERS
)


@every_foreign_header
def test_decryption_authenticates_a_foreign_header_as_received(text: str, live: Api) -> None:
    kid, key = secret(live, "A256GCM", 32)
    protected = b64u(text.format(alg="dir", kid=kid))
    for aad, additional_data in ((None, protected), ("AAAA", f"{protected}.AAAA")):
        output = AESGCM(key).encrypt(bytes(12), b"data", additional_data.encode())
        jwe = {
            "protected": protected,
            "aad": aad,
            "iv": b64u(bytes(12)),
            "ciphertext": b64u(output[:-16]),
            "tag": b64u(output[-16:]),
        }
        assert live.ok("/decrypt", jwe) == {"kid": kid, "data": b64u("data")}


@every_foreign_header
def test_verification_covers_a_foreign_header_as_received(
    text: str, local: Api, application: Any
) -> None:
    kid = local.create(**ED25519_JWK)["kid"]
    protected = b64u(text.format(alg="EdDSA", kid=kid))
    adapter: hsm.Hsm = service_of(application).hsm  # signs under headers that no caller chooses
    ref = hsm.KeyRef(kid=UUID(kid), spec=hsm.KeySpec(kty="OKP", alg="EdDSA", crv="Ed25519"))
    signature = b64u(adapter.sign(ref, "EdDSA", f"{protected}.AAAA".encode()))
    jws = {"protected": protected, "data": "AAAA", "signature": signature}
    assert local.ok("/verify", jws) == {"kid": kid, "valid": True}


# --- Members of responses, in order ---

# RFC 8037 A.1
ED25519_JWK = {
    "kty": "OKP",
    "crv": "Ed25519",
    "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
}
EC_JWK = {"kty": "EC", "crv": "P-256", "d": "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}
SIGNS, ENCRYPTS = ["sign", "verify"], ["encrypt", "decrypt"]
PUBLISHED = {"published": True}
CREATIONS = (
    ({"kty": "oct", "alg": "A192GCM"}, {"kty": "oct", "alg": "A192GCM", "key_ops": ENCRYPTS}),
    ({"kty": "oct", "alg": "HS384"}, {"kty": "oct", "alg": "HS384", "key_ops": SIGNS}),
    (
        {"kty": "oct", "alg": "HS256", "k": b64u(bytes(32))},
        {"kty": "oct", "alg": "HS256", "key_ops": SIGNS},
    ),
    (
        {"kty": "RSA"},
        {"kid_public": UUID, "kty": "RSA", "key_ops": SIGNS, "bits": 2048, **PUBLISHED},
    ),
    (
        {"kty": "RSA", "alg": "PS512"},
        {
            "kid_public": UUID,
            "kty": "RSA",
            "alg": "PS512",
            "key_ops": SIGNS,
            "bits": 2048,
            **PUBLISHED,
        },
    ),
    (
        {"kty": "RSA", "alg": "RSA-OAEP"},
        {"kid_public": UUID, "kty": "RSA", "alg": "RSA-OAEP", "key_ops": ENCRYPTS, "bits": 2048},
    ),
    (
        {"kty": "EC", "crv": "P-384"},
        {"kid_public": UUID, "kty": "EC", "crv": "P-384", "key_ops": SIGNS, **PUBLISHED},
    ),
    (
        {"kty": "EC", "crv": "P-521", "alg": "ES512"},
        {
            "kid_public": UUID,
            "kty": "EC",
            "alg": "ES512",
            "crv": "P-521",
            "key_ops": SIGNS,
            **PUBLISHED,
        },
    ),
    (
        {"kty": "OKP"},
        {"kid_public": UUID, "kty": "OKP", "crv": "Ed25519", "key_ops": SIGNS, **PUBLISHED},
    ),
    (
        ED25519_JWK | {"alg": "EdDSA"},
        {"kid_public": None, "kty": "OKP", "alg": "EdDSA", "crv": "Ed25519", "key_ops": SIGNS},
    ),
    (EC_JWK, {"kid_public": None, "kty": "EC", "crv": "P-256", "key_ops": SIGNS}),
    (
        EC_JWK | {"alg": None, "key_ops": ["sign"], "use": "sig", "ext": True, "kid": "theirs"},
        {"kid_public": None, "kty": "EC", "crv": "P-256", "key_ops": SIGNS},
    ),
)


def is_uuid4(text: str) -> bool:
    return str(UUID(text)) == text and UUID(text).version == 4


@pytest.mark.parametrize(("request_body", "expected"), CREATIONS, ids=lambda body: str(len(body)))
def test_a_created_key_is_described_by_these_members_in_this_order(
    request_body: dict[str, Any], expected: dict[str, Any], live: Api
) -> None:
    created = live.create(**request_body)
    assert list(created) == ["kid", *expected]
    kids = [created["kid"]]
    if expected.get("kid_public") is UUID:
        kids.append(created["kid_public"])
        expected = expected | {"kid_public": created["kid_public"]}
    assert created == {"kid": created["kid"], **expected}
    assert all(map(is_uuid4, kids))
    assert len(set(kids)) == len(kids)


@every_transport
@every_enc
def test_an_unwrapped_key_is_described_by_these_members_in_this_order(
    enc: str, alg: str, live: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    jwe = encrypt(live, pairs["RSA"]["kid"], alg, enc)
    request = {name: jwe[name] for name in ("protected", "encrypted_key")}
    unwrapped = live.ok("/keys/unwrap", request)
    assert list(unwrapped.items()) == [
        ("kid", unwrapped["kid"]),
        ("kty", "oct"),
        ("alg", enc),
        ("key_ops", ENCRYPTS),
    ]
    assert is_uuid4(unwrapped["kid"])


@pytest.mark.parametrize("aad", [{}, {"aad": ""}, {"aad": "AAAA"}])
def test_responses_have_these_members_in_this_order(aad: dict[str, str], live: Api) -> None:
    kid = live.create(kty="oct", alg="A256GCM")["kid"]
    jwe = encrypt(live, kid, "dir", "A256GCM", **aad)
    assert list(jwe) == ["protected", "encrypted_key", "iv", "ciphertext", "tag", *aad]
    assert jwe["encrypted_key"] == ""
    assert list(live.ok("/decrypt", jwe)) == ["kid", "data"]


def test_responses_of_signing_have_these_members_in_this_order(
    live: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    jws = live.ok("/sign", {"kid": pairs["P-256"]["kid"], "alg": "ES256", "data": ""})
    assert list(jws) == ["protected", "signature"]
    assert list(live.ok("/verify", jws | {"data": ""})) == ["kid", "valid"]
    request = {"kid": live.create(kty="oct", alg="HS256")["kid"], "alg": "HS256", "data": ""}
    assert list(live.ok("/mac", request)) == ["kid", "mac"]
    assert list(live.ok("/mac", request | {"mac": ""})) == ["kid", "valid"]


def test_success_is_200_and_json_and_a_deletion_204_without_a_body(live: Api) -> None:
    created = live.post("/keys", {"kty": "oct", "alg": "A128GCM"})
    assert (created.status, created.headers["Content-Type"]) == (200, "application/json")
    assert json.loads(created.content) == created.body
    deleted = live.delete(created.body["kid"])
    assert (deleted.status, deleted.content) == (204, b"")


# --- Freshness ---


def test_no_iv_repeats_over_thousands_of_encryptions_in_three_processes(
    server: str, local: Api
) -> None:
    """The two workers were forked from one process, and must not have its random state twice."""
    kid = local.create(kty="oct", alg="A256GCM")["kid"]
    clients = [Api.over_http(server) for _ in range(8)] + [local]

    request = {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": ""}
    hundred = {"requests": [{"op": "encrypt", "body": request}] * 100}

    def ivs(api: Api) -> list[str]:
        batches = [api.ok("/batch", hundred)["responses"] for _ in range(3)]
        return [answer["body"]["iv"] for answers in batches for answer in answers]

    with ThreadPoolExecutor(len(clients)) as pool:
        seen = [iv for made in pool.map(ivs, clients) for iv in made]
    assert len(seen) == 2700
    assert len(set(seen)) == len(seen)


@every_transport
def test_every_message_has_a_cek_of_its_own(
    alg: str, live: Api, pairs: dict[str, dict[str, Any]]
) -> None:
    first, second = (encrypt(live, pairs["RSA"]["kid"], alg, "A256GCM") for _ in range(2))
    assert first["protected"] == second["protected"]
    swapped = first | {"encrypted_key": second["encrypted_key"]}
    assert live.post("/decrypt", swapped).refusal == (422, "decryption_failed")


# --- Members that must not be ignored ---


@pytest.mark.parametrize("name", ["oth", "size", "length", "modulusLength"])
@pytest.mark.parametrize("kty", ["RSA", "oct"])
def test_a_member_that_would_make_another_key_is_refused(name: str, kty: str, live: Api) -> None:
    refused = live.post("/keys", {"kty": kty, "alg": None, name: [] if name == "oth" else 4096})
    assert refused.refusal == (400, "bad_request")
    assert f"'{name}'" in refused.body["description"]


@pytest.mark.parametrize(
    ("size_bytes", "fitting"),
    [
        (16, "A128GCM, A128KW, A128GCMKW"),
        (24, "A192GCM, A192KW, A192GCMKW"),
        (33, "HS256"),
        (1, None),
    ],
)
def test_who_imports_a_secret_without_alg_is_told_which_fit(
    size_bytes: int, fitting: str | None, live: Api
) -> None:
    refused = live.post("/keys", {"kty": "oct", "k": b64u(bytes(size_bytes))})
    assert refused.refusal == (400, "bad_request")
    ending = f"; a key of {size_bytes} bytes may be for: {fitting}" if fitting else ""
    assert refused.body["description"] == f"Field 'alg' is required for key type 'oct'{ending}"


def test_an_rsa_key_of_its_exponents_alone_signs_as_the_whole_one(live: Api) -> None:
    numbers = rsa.generate_private_key(65537, 2048).private_numbers()
    public = numbers.public_numbers
    members = {
        name: b64u(value.to_bytes((value.bit_length() + 7) // 8))
        for name, value in {"n": public.n, "e": public.e, "d": numbers.d}.items()
    }
    created = live.create(kty="RSA", alg="RS256", **members)
    assert (created["kid_public"], created["bits"]) == (None, 2048)
    jws = live.ok("/sign", {"kid": created["kid"], "alg": "RS256", "data": ""})
    signing_input = f"{jws['protected']}.".encode()
    public.public_key().verify(
        unb64u(jws["signature"]), signing_input, padding.PKCS1v15(), hashes.SHA256()
    )
