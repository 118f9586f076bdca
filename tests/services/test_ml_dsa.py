"""ML-DSA (FIPS 204, RFC 9964) on a token that has it: made, signed with, published, verified."""

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa

from scripts.throwaway import make_token
from scripts.tokens import TOKENS
from tests.http.test_published_keys import MESSAGE, PATH, signed, spoiled
from tests.shared.api import Api, unb64u
from tests.shared.bodies import ML_DSA
from tests.shared.forks import server
from tests.shared.tokens import require

HAVE_IT = [name for name, token in TOKENS.items() if not token.lacks & {*ML_DSA}]
CLASSES: dict[str, Any] = {
    "ML-DSA-44": mldsa.MLDSA44PublicKey,
    "ML-DSA-65": mldsa.MLDSA65PublicKey,
    "ML-DSA-87": mldsa.MLDSA87PublicKey,
}
OLD_NAMES = {"MLDSA44": "ML-DSA-44"}


@pytest.fixture(scope="module", params=HAVE_IT)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    require(request.param)
    settings = make_token(tmp_path_factory.mktemp("ml-dsa") / "state", request.param)
    with server(settings, workers=1) as running:
        yield Api.over_http(running.url)


@pytest.mark.parametrize("alg", ML_DSA)
def test_a_signature_is_that_of_the_published_key_and_of_no_other_message(api, alg):
    made, name = api.create(kty="AKP", alg=alg), OLD_NAMES.get(alg, alg)
    kid, published = made["kid"], api.get(PATH).body["keys"]
    (jwk,) = [key for key in published if key["kid"] == made["kid_public"]]
    assert (jwk["kty"], jwk["alg"]) == ("AKP", name)
    public = CLASSES[name].from_public_bytes(unb64u(jwk["pub"]))
    compact = signed(api, kid, alg)
    protected, payload, signature = compact.split(".")
    public.verify(unb64u(signature), f"{protected}.{payload}".encode())
    with pytest.raises(InvalidSignature):
        public.verify(unb64u(signature), spoiled(compact).rpartition(".")[0].encode())
    for jws, valid in ((compact, True), (spoiled(compact), False)):
        assert api.ok("/verify", {"jws": jws, "kid": kid}) == {"kid": kid, "valid": valid}
    assert unb64u(payload) == MESSAGE
    refused = api.post(f"/keys/{kid}/csr", {"subject": {"CN": "signer"}})
    assert refused.refusal == (422, "crypto_failure")  # none is claimed
    assert api.delete(kid).status == 204
