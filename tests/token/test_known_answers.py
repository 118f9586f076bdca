"""The examples of the RFCs at the adapter, with their CEKs, and rebuilt over HTTP (contract §7).

As they are printed they go to a live service in ``tests/http/test_rfc_messages.py``.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

import hsm
from app.jwk import epk
from app.service import service_of
from hsm import KeyRef, KeySpec
from hsm.algorithms.families import CEK_WRAPPING, ContentEncryption
from hsm.cryptoki import objects
from hsm.life.work import Errand
from hsm.operations import ecdh
from tests.shared import sealing
from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.vector_counts import RecordProperty, count

Example = dict[str, Any]

RFC_FILE = "rfc_known_answers.json"
MANAGEMENT_FILE = Path(__file__).with_name("rfc_key_management.json")


@pytest.fixture
def adapter(application: Any) -> hsm.Hsm:
    return service_of(application).hsm


@pytest.fixture
def rfc(vectors: Path, record_property: RecordProperty) -> Callable[[str], Example]:
    """An example of RFC 7515, 7516 or 8037 by its name; it counts as run."""
    examples = {
        example["name"]: example
        for section in json.loads((vectors / RFC_FILE).read_text("utf-8")).values()
        for example in section
    }

    def take(name: str) -> Example:
        count(record_property, RFC_FILE, 1)
        return examples[name]

    return take


@pytest.fixture
def cookbook(vectors: Path, record_property: RecordProperty) -> Callable[[str], Example]:
    """An example of RFC 7520 by its section; it counts as run."""

    def take(section: str) -> Example:
        (file,) = (vectors / "rfc7520").glob(f"{section.replace('.', '_')}.*.json")
        count(record_property, f"rfc7520/{file.name}", 1)
        return json.loads(file.read_text("utf-8"))

    return take


def imported(api: Api, jwk: dict[str, str], alg: str) -> KeyRef:
    """Import ``jwk`` for ``alg``; return its name."""
    spec = KeySpec(kty=jwk["kty"], alg=alg, crv=jwk.get("crv"))
    return KeyRef(kid=UUID(api.create(**{**jwk, "alg": alg})["kid"]), spec=spec)


def with_primes(jwk: dict[str, str]) -> dict[str, str]:
    """Add to an RSA key of n, e and d what follows from them: only whole keys are imported."""
    n, e, d = (int.from_bytes(unb64u(jwk[name])) for name in ("n", "e", "d"))
    p, q = rsa.rsa_recover_prime_factors(n, e, d)
    follows = {"p": p, "q": q, "dp": d % (p - 1), "dq": d % (q - 1), "qi": pow(q, -1, p)}
    return jwk | {
        name: b64u(value.to_bytes((value.bit_length() + 7) // 8)) for name, value in follows.items()
    }


# --- MAC: /mac takes any signing input, so these run over HTTP ---


def assert_mac(api: Api, k: str, data: str, mac: str) -> None:
    kid = api.create(kty="oct", alg="HS256", k=k)["kid"]
    request = {"kid": kid, "alg": "HS256", "data": data}
    assert api.ok("/mac", request) == {"kid": kid, "mac": mac}
    assert api.ok("/mac", request | {"mac": mac}) == {"kid": kid, "valid": True}


def test_rfc7515_a1_hs256_as_typed_from_the_rfc(live: Api) -> None:
    assert_mac(
        live,
        k="AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
        data=b64u(
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9"
            "."
            "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
            "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
        ),
        mac="dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    )


@pytest.mark.parametrize("name", ["rfc7515_a1_hs256", "rfc7520_s4_4_hs256"])
def test_hs256_examples_have_their_mac(name: str, live: Api, rfc: Callable[[str], Example]) -> None:
    example = rfc(name)
    assert_mac(live, example["k"], example["data_b64url"], example["mac_b64url"])


def test_rfc7520_4_4_has_the_mac_that_the_contract_names(
    live: Api, cookbook: Callable[[str], Example]
) -> None:
    example = cookbook("4.4")
    assert example["signing"]["sig"] == "s0h6KThzkfBBBkLspW1h84VsJZFTsPPqMDA7g1Md7p0"
    signing_input = b64u(example["signing"]["sig-input"])
    assert_mac(live, example["input"]["key"]["k"], signing_input, example["signing"]["sig"])


def test_rfc7520_4_5_is_the_mac_over_content_that_is_not_in_the_jws(
    live: Api, cookbook: Callable[[str], Example]
) -> None:
    example = cookbook("4.5")
    protected, nothing, mac = example["output"]["compact"].split(".")
    assert nothing == ""
    signing_input = f"{protected}.{b64u(example['input']['payload'])}"
    assert_mac(live, example["input"]["key"]["k"], b64u(signing_input), mac)


# --- Signatures: their headers have no kid of ours, so these run at the adapter ---


def assert_verifies(
    adapter: hsm.Hsm, ref: KeyRef, alg: str, signing_input: str, signature: str
) -> None:
    octets = unb64u(signature)
    assert adapter.verify(ref, alg, signing_input.encode(), octets)
    assert not adapter.verify(ref, alg, signing_input.encode() + b"A", octets)
    assert not adapter.verify(
        ref, alg, signing_input.encode(), octets[:-1] + bytes([~octets[-1] & 255])
    )


def test_rfc7515_a2_rs256_is_reproduced(
    local: Api, adapter: hsm.Hsm, rfc: Callable[[str], Example]
) -> None:
    example = rfc("rfc7515_a2_rs256")
    ref = imported(local, with_primes(example["jwk"]), "RS256")
    signing_input = f"{example['protected']}.{example['payload_b64url']}"
    signature = adapter.sign(ref, "RS256", signing_input.encode())
    assert b64u(signature) == example["signature_b64url"]
    assert_verifies(adapter, ref, "RS256", signing_input, example["signature_b64url"])


@pytest.mark.parametrize("name", ["rfc7515_a3_es256", "rfc7515_a4_es512"])
def test_rfc7515_ecdsa_examples_verify(
    name: str, local: Api, adapter: hsm.Hsm, rfc: Callable[[str], Example]
) -> None:
    example = rfc(name)
    alg = example["alg"]
    ref = imported(local, example["jwk"], alg)
    signing_input = f"{example['protected']}.{example['payload_b64url']}"
    assert_verifies(adapter, ref, alg, signing_input, example["signature_b64url"])
    ours = adapter.sign(ref, alg, signing_input.encode())
    assert_verifies(adapter, ref, alg, signing_input, b64u(ours))


def test_rfc8037_a4_ed25519_is_reproduced(
    local: Api, adapter: hsm.Hsm, rfc: Callable[[str], Example]
) -> None:
    example = rfc("rfc8037_a4_ed25519")
    ref = imported(local, example["jwk"], "EdDSA")
    signing_input = example["signing_input_ascii"]
    assert b64u(adapter.sign(ref, "EdDSA", signing_input.encode())) == example["signature"]
    assert_verifies(adapter, ref, "EdDSA", signing_input, example["signature"])


def test_rfc7520_4_1_rs256_is_reproduced(
    local: Api, adapter: hsm.Hsm, cookbook: Callable[[str], Example]
) -> None:
    example = cookbook("4.1")
    ref = imported(local, example["input"]["key"], "RS256")
    signing = example["signing"]
    assert b64u(adapter.sign(ref, "RS256", signing["sig-input"].encode())) == signing["sig"]
    assert_verifies(adapter, ref, "RS256", signing["sig-input"], signing["sig"])


@pytest.mark.parametrize(("section", "alg"), [("4.2", "PS384"), ("4.3", "ES512")])
def test_rfc7520_signatures_with_a_random_part_verify(
    section: str, alg: str, local: Api, adapter: hsm.Hsm, cookbook: Callable[[str], Example]
) -> None:
    example = cookbook(section)
    assert example["input"]["alg"] == alg
    ref = imported(local, example["input"]["key"], alg)
    signing = example["signing"]
    assert_verifies(adapter, ref, alg, signing["sig-input"], signing["sig"])


# --- JWE: as they are at the adapter, rebuilt around the fixed CEK over HTTP ---


def seal(cek: bytes, iv: str, plaintext: bytes, protected: str) -> dict[str, str]:
    """Return what AES-GCM makes with the CEK and IV of the example under a header with our kid."""
    output = AESGCM(cek).encrypt(unb64u(iv), plaintext, protected.encode())
    return {
        "protected": protected,
        "iv": iv,
        "ciphertext": b64u(output[:-16]),
        "tag": b64u(output[-16:]),
    }


def assert_direct(api: Api, protected: dict[str, str], cek: bytes, iv: str, text: str) -> None:
    """Show that the key that the header names is ``cek``."""
    jwe = seal(cek, iv, text.encode(), header(**protected))
    assert api.ok("/decrypt", jwe) == {"kid": protected["kid"], "data": b64u(text)}


def assert_transport(api: Api, kid: UUID, jwe: dict[str, str], cek: bytes, text: str) -> None:
    """Show that RSA-OAEP gives ``cek``: in a JWE under our header, and as a key of its own."""
    protected = header(alg="RSA-OAEP", enc="A256GCM", kid=str(kid))
    encrypted_key = {"encrypted_key": jwe["encrypted_key"]}
    ours = seal(cek, jwe["iv"], text.encode(), protected) | encrypted_key
    assert api.ok("/decrypt", ours) == {"kid": str(kid), "data": b64u(text)}
    unwrapped = api.ok("/keys/unwrap", {"protected": protected} | encrypted_key)
    direct = {"alg": "dir", "enc": "A256GCM", "kid": unwrapped["kid"]}
    assert_direct(api, direct, cek, jwe["iv"], text)


def sealed(jwe: dict[str, str]) -> hsm.Sealed:
    return hsm.Sealed(*(unb64u(jwe[name]) for name in ("iv", "ciphertext", "tag")))


def test_rfc7516_a1_decrypts_at_the_adapter_and_rebuilt_over_http(
    local: Api, adapter: hsm.Hsm, rfc: Callable[[str], Example]
) -> None:
    example = rfc("rfc7516_a1_rsa_oaep_a256gcm")
    ref = imported(local, example["jwk"], "RSA-OAEP")
    text, cek = example["plaintext_utf8"], unb64u(example["cek_b64url"])
    jwe = {
        "protected": example["rfc_protected"],
        "encrypted_key": example["encrypted_key"],
        "iv": example["iv"],
        "ciphertext": example["rfc_ciphertext"],
        "tag": example["rfc_tag"],
    }
    assert transported(adapter, ref, jwe) == text
    assert_transport(local, ref.kid, jwe, cek, text)


def test_rfc7520_5_2_decrypts_at_the_adapter_and_rebuilt_over_http(
    local: Api, adapter: hsm.Hsm, cookbook: Callable[[str], Example]
) -> None:
    example = cookbook("5.2")
    ref = imported(local, example["input"]["key"], "RSA-OAEP")
    text, cek = example["input"]["plaintext"], unb64u(example["generated"]["cek"])
    jwe = example["output"]["json_flat"]
    assert transported(adapter, ref, jwe) == text
    assert_transport(local, ref.kid, jwe, cek, text)


def transported(adapter: hsm.Hsm, ref: KeyRef, jwe: dict[str, str]) -> str:
    """Decrypt a JWE of the RFC exactly as it stands there."""
    return adapter.decrypt(
        ref,
        "RSA-OAEP",
        "A256GCM",
        unb64u(jwe["encrypted_key"]),
        sealed(jwe),
        jwe["protected"].encode(),
    ).decode()


def test_rfc7520_5_6_decrypts_at_the_adapter_and_rebuilt_over_http(
    local: Api, adapter: hsm.Hsm, cookbook: Callable[[str], Example]
) -> None:
    example = cookbook("5.6")
    key, text = example["input"]["key"], example["input"]["plaintext"]
    ref = imported(local, key, "A128GCM")
    jwe = example["output"]["json_flat"]
    plaintext = adapter.decrypt(ref, "dir", "A128GCM", b"", sealed(jwe), jwe["protected"].encode())
    assert plaintext.decode() == text
    direct = {"alg": "dir", "enc": "A128GCM", "kid": str(ref.kid)}
    assert_direct(local, direct, unb64u(key["k"]), jwe["iv"], text)


# --- Key management: CEKs of the RFCs, and the messages that AES-GCM seals ---


@pytest.fixture
def managed(record_property: RecordProperty) -> Callable[[str], Example]:
    """An example of key management by its RFC and section; it counts as run."""

    def take(name: str) -> Example:
        count(record_property, MANAGEMENT_FILE.name, 1)
        return json.loads(MANAGEMENT_FILE.read_text("utf-8"))[name]

    return take


def assert_cek(api: Api, protected: dict[str, Any], encrypted_key: str, cek: str) -> None:
    """Show that the CEK of a message, with as many bytes as A256GCM takes, is ``cek``."""
    jwe = {"protected": header(**protected, enc="A256GCM"), "encrypted_key": encrypted_key}
    unwrapped = api.ok("/keys/unwrap", jwe)
    direct = {"alg": "dir", "enc": "A256GCM", "kid": unwrapped["kid"]}
    assert_direct(api, direct, unb64u(cek), b64u(bytes(12)), "text")


def test_rfc7516_a3_wraps_and_unwraps_its_cek(
    local: Api, adapter: hsm.Hsm, managed: Callable[[str], Example]
) -> None:
    example = managed("RFC 7516 A.3")
    ref, encrypted_key = imported(local, example["jwk"], "A128KW"), example["jwe"]["encrypted_key"]
    assert_cek(local, {"alg": "A128KW", "kid": str(ref.kid)}, encrypted_key, example["cek"])

    def wrap(token: Any, session: Any) -> bytes:
        path, _, enc = token.transport("A128KW", "A256GCM")
        wanted = objects.secrets_of(hsm.KEY_MANAGEMENTS["A128KW"])
        with (
            token.stores["token"].lent(session, ref, wanted) as keys,
            path._imported(keys, enc, unb64u(example["cek"])) as cek,
        ):
            return keys.secrets[0].wrap_key(cek.secrets[0], mechanism=CEK_WRAPPING)

    assert b64u(adapter._connection.perform(Errand(verb=wrap))) == encrypted_key


@pytest.mark.parametrize("name", ["RFC 7518 C", "RFC 7520 5.5"])
def test_ecdh_es_examples_derive_their_cek(
    name: str, local: Api, adapter: hsm.Hsm, managed: Callable[[str], Example]
) -> None:
    example = managed(name)
    members = example.get("protected") or json.loads(unb64u(example["jwe"]["protected"]))
    ref, row = imported(local, example["jwk"], "ECDH-ES"), hsm.KEY_AGREEMENTS["ECDH-ES"]
    party_info = [unb64u(members.get(name, "")) for name in ("apu", "apv")]
    agreement = hsm.Agreement(epk.read(members["epk"]), *party_info)
    enc = ContentEncryption(name=example["enc"], key_bytes=len(unb64u(example["cek"])))

    def derive(token: Any, session: Any) -> bytearray:
        store = token.stores["token"]
        with store.lent(session, ref, [objects.PRIVATE]) as keys:
            return ecdh.derived(keys.private, store._templates, row, enc, agreement)

    assert b64u(bytes(adapter._connection.perform(Errand(verb=derive)))) == example["cek"]


def test_rfc7518_c_opens_over_http(
    live: Api, managed: Callable[[str], Example], record_property: RecordProperty
) -> None:
    example = managed("RFC 7518 C")
    kid = str(imported(live, example["jwk"], "ECDH-ES").kid)

    def sealed_under(protected: str) -> dict[str, str]:
        return seal(unb64u(example["cek"]), b64u(bytes(12)), b"text", protected) | {"kid": kid}

    jwe = sealed_under(header(**example["protected"]))
    assert live.ok("/decrypt", jwe) == {"kid": kid, "data": b64u("text")}
    other = sealed_under(header(**example["protected"] | {"apv": b64u("Eve")}))
    assert live.post("/decrypt", other).refusal == (422, "decryption_failed")
    count(record_property, "RFC 7518", 1)


@pytest.mark.parametrize("section", ["5.4", "5.8"])
def test_rfc7520_key_management_decrypts_at_the_adapter_and_rebuilt_over_http(
    section: str, local: Api, adapter: hsm.Hsm, cookbook: Callable[[str], Example]
) -> None:
    example = cookbook(section)
    alg, text, jwe = example["input"]["alg"], example["input"]["plaintext"], flattened(example)
    ref = imported(local, example["input"]["key"], alg)
    members = json.loads(unb64u(jwe["protected"]))
    agreement = hsm.Agreement(epk.read(members["epk"]) if "epk" in members else None)
    plaintext = adapter.decrypt(
        ref,
        alg,
        "A128GCM",
        unb64u(jwe["encrypted_key"]),
        sealed(jwe),
        jwe["protected"].encode(),
        agreement,
    )
    assert plaintext.decode() == text
    protected = header(**members | {"kid": str(ref.kid)})
    ours = seal(unb64u(example["generated"]["cek"]), jwe["iv"], text.encode(), protected)
    ours |= {"encrypted_key": jwe["encrypted_key"]}
    assert local.ok("/decrypt", ours) == {"kid": str(ref.kid), "data": b64u(text)}
    unwrapped = local.ok("/keys/unwrap", ours)
    direct = {"alg": "dir", "enc": "A128GCM", "kid": unwrapped["kid"]}
    assert_direct(local, direct, unb64u(example["generated"]["cek"]), jwe["iv"], text)


def flattened(example: Example) -> dict[str, str]:
    """The parts of the compact form: that of §5.4 lacks the encrypted key in its JSON forms."""
    names = ("protected", "encrypted_key", "iv", "ciphertext", "tag")
    return dict(zip(names, example["output"]["compact"].split("."), strict=True))


@pytest.mark.parametrize("name", ["RFC 7516 A.2", "RFC 7520 5.1"])
def test_rsa1_5_examples_unwrap_their_cek(
    name: str, rsa1_5: Api, managed: Callable[[str], Example]
) -> None:
    example = managed(name)
    protected = {"alg": "RSA1_5", "kid": str(imported(rsa1_5, example["jwk"], "RSA1_5").kid)}
    assert_cek(rsa1_5, protected, example["jwe"]["encrypted_key"], example["cek"])


@pytest.mark.parametrize("name", ["RFC 7516 A.3", "RFC 7520 5.5"])
def test_key_management_with_aes_cbc_hmac_decrypts_at_the_adapter_and_rebuilt_over_http(
    name: str, local: Api, adapter: hsm.Hsm, managed: Callable[[str], Example]
) -> None:
    example = managed(name)
    alg, enc, jwe = example["alg"], example["enc"], example["jwe"]
    ref, members = imported(local, example["jwk"], alg), json.loads(unb64u(jwe["protected"]))
    agreement = hsm.Agreement(epk.read(members["epk"]) if "epk" in members else None)
    encrypted_key, aad = unb64u(jwe["encrypted_key"]), jwe["protected"].encode()
    opened = adapter.decrypt(ref, alg, enc, encrypted_key, sealed(jwe), aad, agreement)
    assert opened.decode() == example["plaintext"]
    assert_rebuilt(local, ref.kid, example)


@pytest.mark.parametrize("name", ["RFC 7516 A.2", "RFC 7520 5.1"])
def test_rsa1_5_examples_with_aes_cbc_hmac_decrypt_rebuilt_over_http(
    name: str, rsa1_5: Api, managed: Callable[[str], Example]
) -> None:
    example = managed(name)
    assert_rebuilt(rsa1_5, imported(rsa1_5, example["jwk"], "RSA1_5").kid, example)


def assert_rebuilt(api: Api, kid: UUID, example: Example) -> None:
    """Decrypt the example with our kid in its header, and so with another tag."""
    jwe = example["jwe"]
    protected = header(**json.loads(unb64u(jwe["protected"])) | {"kid": str(kid)})
    text, iv, cek = example["plaintext"], unb64u(jwe["iv"]), unb64u(example["cek"])
    ours = sealing.seal(example["enc"], cek, iv, text.encode(), protected.encode())
    assert b64u(ours.ciphertext) == jwe["ciphertext"]
    body = {"protected": protected, "encrypted_key": jwe["encrypted_key"]}
    body |= {part: b64u(value) for part, value in ours._asdict().items()}
    assert api.ok("/decrypt", body) == {"kid": str(kid), "data": b64u(text)}
