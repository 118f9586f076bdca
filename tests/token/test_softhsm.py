"""A SoftHSM token that lost its ``token.object`` is mended by who opens it next; who made it."""

from pathlib import Path

import pytest

from scripts.throwaway import make_token
from tests.shared.api import Api
from tests.shared.forks import server


@pytest.mark.parametrize("lose", [lambda path: path.write_bytes(b""), Path.unlink])
def test_an_emptied_token_object_is_put_back(tmp_path, lose):
    settings = make_token(tmp_path / "state")
    with server(settings, workers=1) as running:
        kid = Api.over_http(running.url).create(kty="oct", alg="HS256")["kid"]
    (token_object,) = (tmp_path / "state" / "tokens").glob("*/token.object")
    lose(token_object)
    with server(settings, workers=1) as running:
        Api.over_http(running.url).ok("/mac", {"kid": kid, "alg": "HS256", "data": ""})
    assert token_object.stat().st_size


def test_library_and_token_say_what_they_are(token):
    product = token.product
    assert product.library.startswith("SoftHSM Implementation of PKCS11")
    assert product.token.startswith("SoftHSM project SoftHSM")
    assert product.cryptoki_version == "2.40"
    assert product.library_version.startswith("2.")
    assert product.firmware_version == product.hardware_version == product.library_version
