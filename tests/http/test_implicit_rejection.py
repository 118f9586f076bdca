"""The five ways to fail RSA-OAEP decryption look the same (RFC 7516 §11.5)."""

import os
from uuid import UUID

import pytest

from app.jose import encoding
from app.service import service_of
from tests.shared.api import Answer, b64u, unb64u
from tests.shared.sealing import CEK_BYTES
from tests.unit.test_oaep import OAEPS, block_of, encoded

VARYING_HEADERS = {"Date", "X-Request-Id"}


@pytest.fixture(scope="module", params=[*OAEPS.values()], ids=[*OAEPS])
def row(request):
    return request.param


@pytest.fixture(scope="module", params=["A256GCM", "A256CBC-HS512"])
def failures(request, row, live, application):
    """Requests to /decrypt that fail, by cause, with one key of each algorithm."""
    enc = request.param
    kid = live.shared(kty="RSA", alg=row.name)["kid"]
    found = service_of(application).registry.find(UUID(kid))
    assert found
    assert found.public_jwk
    n, e = (int.from_bytes(encoding.decode(found.public_jwk[name]), "big") for name in ("n", "e"))
    jwe = live.ok("/encrypt", {"kid": kid, "alg": row.name, "enc": enc, "data": b64u("hi")})

    def with_em(block: bytes, first: int = 0) -> dict[str, str]:
        em = int.from_bytes(encoded(block, row.hash, first), "big")
        return jwe | {"encrypted_key": b64u(pow(em, e, n).to_bytes(256, "big"))}

    good = block_of(os.urandom(CEK_BYTES[enc]), row.hash, 256)
    hash_bytes = row.hash.digest_size
    tag = bytearray(unb64u(jwe["tag"]))
    tag[0] ^= 1
    assert live.post("/decrypt", jwe).status == 200
    return {
        "bad padding": with_em(good, first=1),
        "bad label hash": with_em(os.urandom(hash_bytes) + good[hash_bytes:]),
        "no separator": with_em(good[:hash_bytes] + bytes(len(good) - hash_bytes)),
        "wrong CEK size": with_em(block_of(os.urandom(16), row.hash, 256)),
        "bad tag": jwe | {"tag": b64u(bytes(tag))},
    }


def test_all_five_give_the_same_bytes(failures, live):
    answers = {cause: live.post("/decrypt", body) for cause, body in failures.items()}
    headers = {
        tuple(sorted((k, v) for k, v in answer.headers.items() if k not in VARYING_HEADERS))
        for answer in answers.values()
    }
    assert len(headers) == 1
    assert {answer.content for answer in answers.values()} == {
        b'{"error":"decryption_failed","description":"Decryption failed"}\n'
    }
    assert {answer.status for answer in answers.values()} == {422}


def test_a_failed_direct_decryption_is_no_different(failures, live):
    kid = live.create(kty="oct", alg="A256GCM")["kid"]
    jwe = live.ok("/encrypt", {"kid": kid, "alg": "dir", "enc": "A256GCM", "data": b64u("hi")})
    answer = live.post("/decrypt", jwe | {"tag": b64u(bytes(16))})
    oaep = live.post("/decrypt", failures["bad padding"])
    assert (answer.status, answer.content) == (oaep.status, oaep.content)


def test_unwrap_tells_a_wrong_size_from_bad_padding_and_no_more(failures, live):
    def unwrap(cause: str) -> Answer:
        body = {name: failures[cause][name] for name in ("protected", "encrypted_key")}
        return live.post("/keys/unwrap", body)

    paddings = [unwrap(cause) for cause in ("bad padding", "bad label hash", "no separator")]
    assert {(answer.status, answer.content) for answer in paddings} == {
        (422, b'{"error":"decryption_failed","description":"Decryption failed"}\n')
    }
    assert unwrap("wrong CEK size").refusal == (422, "crypto_failure")
    assert unwrap("bad tag").status == 200
