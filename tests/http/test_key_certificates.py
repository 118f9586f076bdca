"""Certificates of keys: asked for, kept with their chain, and shown in JWKs and headers."""

import base64
import hashlib
import json
import ssl
import subprocess
from typing import Any

import jwcrypto.jwk
import jwcrypto.jws
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID

from tests.shared.api import Api, b64u, header, unb64u
from tests.shared.chains import (
    certificate,
    chain_for,
    der,
    der_of_no_version,
    named,
    public_key,
    x5c,
)
from tests.shared.injector import Injector

BAD_REQUEST = (400, "bad_request")
CRYPTO_FAILURE = (422, "crypto_failure")
PAIRS: dict[str, dict[str, str]] = {
    "RS256": {"kty": "RSA", "alg": "RS256"},
    "PS384": {"kty": "RSA", "alg": "PS384"},
    "ES256": {"kty": "EC", "crv": "P-256", "alg": "ES256"},
    "ES512": {"kty": "EC", "crv": "P-521", "alg": "ES512"},
    "EdDSA": {"kty": "OKP", "alg": "EdDSA"},
}
SUBJECT = {"CN": "signer.example.com", "O": "Example", "C": "DE"}


def pem(chain: list[x509.Certificate]) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in chain)


def put(api: Api, kid: str, **members: Any) -> Any:
    return api.request("PUT", f"/keys/{kid}/certificate", json=members)


@pytest.fixture
def signer(local: Api) -> Any:
    return local.create(**PAIRS["ES256"])


@pytest.fixture
def chain(local: Api, signer: Any) -> list[x509.Certificate]:
    return chain_for(public_key(local, signer["kid"]))


# --- Requests ---


@pytest.mark.parametrize("alg", PAIRS)
def test_openssl_verifies_a_request_and_it_holds_the_key(local, alg) -> None:
    kid = local.shared(**PAIRS[alg])["kid"]
    body = {"subject": SUBJECT, "dns": ["a.example.com", "*.b.example.com"]}
    text = local.ok(f"/keys/{kid}/csr", body)["csr"]
    command = ["openssl", "req", "-verify", "-noout"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, check=True)
    assert "verify OK" in done.stdout + done.stderr
    request = x509.load_pem_x509_csr(text.encode())
    assert request.is_signature_valid
    assert request.public_key() == public_key(local, kid)
    assert request.subject.rfc4514_string() == "C=DE,O=Example,CN=signer.example.com"
    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == body["dns"]
    assert not names.critical


def test_a_request_may_name_hosts_alone(local, signer) -> None:
    body = {"subject": {}, "dns": ["a.example.com"]}
    text = local.ok(f"/keys/{signer['kid']}/csr", body)["csr"]
    request = x509.load_pem_x509_csr(text.encode())
    assert request.subject == x509.Name([])
    names = request.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME)
    assert names.critical  # RFC 5280 §4.2.1.6


def test_a_key_that_does_several_algorithms_signs_with_the_one_that_is_said(local) -> None:
    kid = local.shared(kty="RSA")["kid"]
    for alg, sha in (("RS512", "sha512"), ("PS256", "sha256")):
        text = local.ok(f"/keys/{kid}/csr", {"subject": SUBJECT, "alg": alg})["csr"]
        request = x509.load_pem_x509_csr(text.encode())
        assert request.is_signature_valid
        assert request.signature_hash_algorithm
        assert request.signature_hash_algorithm.name == sha


WRONG_REQUESTS = {
    "of nobody": ({"subject": {}}, BAD_REQUEST),
    "without a subject": ({"dns": ["a.example.com"]}, BAD_REQUEST),
    "of text": ({"subject": "CN=a"}, BAD_REQUEST),
    "of an unknown part": ({"subject": {"X": "a"}}, BAD_REQUEST),
    "of a number": ({"subject": {"CN": 1}}, BAD_REQUEST),
    "of an empty name": ({"subject": {"CN": ""}}, BAD_REQUEST),
    "of a long name": ({"subject": {"CN": "a" * 65}}, BAD_REQUEST),
    "of a name with long characters": ({"subject": {"CN": "\u00e4" * 33}}, BAD_REQUEST),
    "of a name with a line break": ({"subject": {"CN": "a\nb"}}, BAD_REQUEST),
    "of no country": ({"subject": {"C": "Germany"}}, BAD_REQUEST),
    "of a number that is not ASCII": ({"subject": {"serialNumber": "\u00e4"}}, BAD_REQUEST),
    "of a number that X.520 has not": ({"subject": {"serialNumber": "1_2"}}, BAD_REQUEST),
    "of no host": ({"subject": SUBJECT, "dns": ["a b"]}, BAD_REQUEST),
    "of a host with a line break": ({"subject": SUBJECT, "dns": ["a.de\n"]}, BAD_REQUEST),
    "of a host that is not ASCII": ({"subject": SUBJECT, "dns": ["\u00e4.de"]}, BAD_REQUEST),
    "of a long host": ({"subject": SUBJECT, "dns": ["a." * 127 + "de"]}, BAD_REQUEST),
    "of hosts as text": ({"subject": SUBJECT, "dns": "a.de"}, BAD_REQUEST),
    "of too many hosts": ({"subject": SUBJECT, "dns": ["a.de"] * 101}, BAD_REQUEST),
    "of another alg": ({"subject": SUBJECT, "alg": "ES384"}, CRYPTO_FAILURE),
    "of a MAC": ({"subject": SUBJECT, "alg": "HS256"}, (422, "unsupported_algorithm")),
}


@pytest.mark.parametrize(("body", "answer"), WRONG_REQUESTS.values(), ids=WRONG_REQUESTS)
def test_a_wrong_request_is_refused(local, signer, body, answer, chaos: Injector) -> None:
    signed = chaos.count_own("C_Sign")
    assert local.post(f"/keys/{signer['kid']}/csr", body).refusal == answer
    assert not signed["C_Sign"]


@pytest.mark.parametrize(
    "members", [{"kty": "oct", "alg": "HS256"}, {"kty": "RSA", "alg": "RSA-OAEP"}]
)
def test_a_key_that_does_not_sign_asks_for_no_certificate(local, members) -> None:
    kid = local.shared(**members)["kid"]
    assert local.post(f"/keys/{kid}/csr", {"subject": SUBJECT}).refusal == CRYPTO_FAILURE


# --- Chains ---


@pytest.mark.parametrize("form", ["chain", "x5c"])
def test_a_chain_is_kept_shown_and_forgotten(local, signer, chain, form) -> None:
    kid = signer["kid"]
    answer = put(local, kid, **{form: pem(chain) if form == "chain" else x5c(chain)})
    assert answer.status == 200
    thumbprint = b64u(hashlib.sha256(der(chain[0])).digest())
    read = local.get(f"/keys/{kid}").body
    assert read == answer.body
    assert read["jwk"]["x5c"] == x5c(chain)
    assert read["jwk"]["x5t#S256"] == thumbprint
    published = local.get("/.well-known/jwks.json").body["keys"]
    (entry,) = [one for one in published if one["kid"] == signer["kid_public"]]
    assert (entry["x5c"], entry["x5t#S256"]) == (x5c(chain), thumbprint)
    jwcrypto.jwk.JWK(**entry)  # which checks them, too
    for _ in range(2):
        assert local.request("DELETE", f"/keys/{kid}/certificate").status == 204
    assert not {"x5c", "x5t#S256"} & local.get(f"/keys/{kid}").body["jwk"].keys()


def test_another_certificate_takes_the_place_of_the_first(local, signer, chain) -> None:
    assert put(local, signer["kid"], x5c=x5c(chain)).status == 200
    other = chain_for(public_key(local, signer["kid"]))
    assert put(local, signer["kid"], x5c=x5c(other[:1])).body["jwk"]["x5c"] == x5c(other[:1])


@pytest.mark.parametrize("alg", PAIRS)
def test_a_header_has_the_certificate_that_it_asks_for(local, alg) -> None:
    kid = local.create(**PAIRS[alg])["kid"]
    chain = chain_for(public_key(local, kid))
    assert put(local, kid, x5c=x5c(chain)).status == 200
    body = {"kid": kid, "alg": alg, "data": b64u("{}"), "serialization": "compact"}
    wanted = {"kid": None, "x5c": True, "x5t#S256": True}
    compact = local.ok("/sign", body | {"header": wanted})["jws"]
    members = json.loads(unb64u(compact.split(".")[0]))
    assert list(members) == ["alg", "x5c", "x5t#S256"]
    leaf = x509.load_der_x509_certificate(base64.b64decode(members["x5c"][0]))
    assert members["x5t#S256"] == b64u(hashlib.sha256(der(leaf)).digest())
    message = jwcrypto.jws.JWS()
    message.allowed_algs = [alg]
    message.deserialize(compact, jwcrypto.jwk.JWK.from_pyca(leaf.public_key()))
    assert message.payload == b"{}"


def test_the_thumbprint_of_its_certificate_may_be_given(local, signer, chain) -> None:
    put(local, signer["kid"], x5c=x5c(chain))
    given = b64u(hashlib.sha256(der(chain[0])).digest())
    body = {"kid": signer["kid"], "alg": "ES256", "data": ""}
    assert local.ok("/sign", body | {"header": {"x5t#S256": given}})
    assert local.ok("/sign", body | {"protected": header(**{"alg": "ES256", "x5t#S256": given})})
    other = b64u(hashlib.sha256(der(chain[1])).digest())
    refused = local.post("/sign", body | {"header": {"x5t#S256": other}})
    assert refused.refusal == CRYPTO_FAILURE


def test_a_destroyed_key_has_no_certificate(local, signer, chain) -> None:
    put(local, signer["kid"], x5c=x5c(chain))
    assert local.delete(signer["kid"]).status == 204
    assert put(local, signer["kid"], x5c=x5c(chain)).refusal == (404, "not_found")


def test_a_chain_that_does_not_hold_the_key_or_is_broken_is_refused(local, signer, chain) -> None:
    own, issuer, root = chain
    other = chain_for(ec.generate_private_key(ec.SECP256R1()).public_key())
    stranger = ec.generate_private_key(ec.SECP256R1())
    forged = certificate("signer", own.public_key(), "issuer", stranger)
    renamed = certificate("signer", own.public_key(), "nobody", stranger)
    wrong = {
        "of another key": other,
        "in the wrong order": [issuer, own, root],
        "without the one between": [own, root],
        "of another issuer": [own, other[1]],
        "signed by another": [forged, issuer],
        "of another name": [renamed, issuer],
        "with the root twice, and another": [own, issuer, root, other[2]],
    }
    for title, one in wrong.items():
        assert put(local, signer["kid"], x5c=x5c(one)).refusal == BAD_REQUEST, title
        assert put(local, signer["kid"], chain=pem(one)).refusal == BAD_REQUEST, title
    assert "x5c" not in local.get(f"/keys/{signer['kid']}").body["jwk"]


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"x5c": []},
        {"x5c": "AAAA"},
        {"x5c": [1]},
        {"x5c": ["AAAA"]},
        {"x5c": ["?"]},
        {"chain": ""},
        {"chain": "no certificate"},
        {"chain": 1},
        {"chain": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"},
    ],
)
def test_what_is_no_chain_is_refused(local, signer, members) -> None:
    assert put(local, signer["kid"], **members).refusal == BAD_REQUEST


@pytest.mark.parametrize("place", [0, 1])
def test_certificates_of_a_version_that_there_is_not_are_refused(
    local, signer, chain, place
) -> None:
    ders = [*map(der, chain)]
    ders[place] = der_of_no_version(chain[place])
    given = [base64.b64encode(one).decode() for one in ders]
    assert put(local, signer["kid"], x5c=given).refusal == BAD_REQUEST
    text = "".join(map(ssl.DER_cert_to_PEM_cert, ders))
    assert put(local, signer["kid"], chain=text).refusal == BAD_REQUEST


def test_both_forms_at_once_and_too_many_are_refused(local, signer, chain) -> None:
    both = put(local, signer["kid"], x5c=x5c(chain), chain=pem(chain))
    assert both.body["description"] == "Field 'x5c' does not go with 'chain'"
    root = chain[2]
    assert named("root") == root.issuer
    many = put(local, signer["kid"], x5c=x5c([*chain, *[root] * 8]))
    assert many.body["description"] == "Field 'x5c' must hold 1 to 10 certificates"


def test_a_secret_key_has_no_certificate(local, chain) -> None:
    kid = local.create(kty="oct", alg="HS256")["kid"]
    assert put(local, kid, x5c=x5c(chain)).refusal == BAD_REQUEST
