"""A SoftHSM token that lost its ``token.object`` is mended by who opens it next; who made it."""

from pathlib import Path

import pytest

from hsm import TokenUnavailable
from hsm.tokens.softhsm import FirstAid
from scripts.throwaway import make_token
from tests.shared.accounts import nobody, shared_directory
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


def test_the_configuration_is_read_as_softhsm_reads_it(monkeypatch, tmp_path):
    settings = make_token(tmp_path / "state")
    monkeypatch.setenv("SOFTHSM2_CONF", settings["SOFTHSM2_CONF"])
    configuration = Path(settings["SOFTHSM2_CONF"])
    lines = configuration.read_bytes().splitlines()
    configuration.write_bytes(b"# f\xfcr\n" + b"".join(b"%b # \xdcbung\n" % line for line in lines))
    module = settings["JOSE_HSM_PKCS11_MODULE"]
    assert FirstAid(Path(module), tmp_path).directory() == tmp_path / "state" / "tokens"
    with server(settings, workers=1) as running:
        Api.over_http(running.url).create(kty="oct", alg="HS256")


@pytest.mark.parametrize("closed", ["softhsm.conf", "tokens", "tokens/*"])
def test_files_that_may_not_be_read_are_named(monkeypatch, closed):
    with shared_directory() as directory:
        state = directory / "state"
        settings = make_token(state)
        monkeypatch.setenv("SOFTHSM2_CONF", settings["SOFTHSM2_CONF"])
        for each in (state, *state.iterdir(), *(state / "tokens").iterdir()):
            each.chmod(0o755)
        first_aid = FirstAid(Path(settings["JOSE_HSM_PKCS11_MODULE"]), state / "softhsm")
        with nobody():
            first_aid.require_readable()
        (path,) = state.glob(closed)
        path.chmod(0)
        with nobody(), pytest.raises(TokenUnavailable, match=f"may not read {path}") as caught:
            first_aid.require_readable()
        assert caught.value.cause == "permission"
        path.chmod(0o755)


def test_library_and_token_say_what_they_are(token):
    product = token.product
    assert product.library.startswith("SoftHSM Implementation of PKCS11")
    assert product.token.startswith("SoftHSM project SoftHSM")
    assert product.cryptoki_version == "2.40"
    assert product.library_version.startswith("2.")
    assert product.firmware_version == product.hardware_version == product.library_version
