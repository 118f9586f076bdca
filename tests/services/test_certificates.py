"""TLS client certificates: whom they name, demanded by gunicorn itself."""

import signal
import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from flask import Request
from werkzeug.test import EnvironBuilder

from app.auth.certificates import CertificateWay, subject_of
from app.auth.schemes import Refused, Roles
from app.config import Config
from app.http.router import API
from app.settings import ConfigError
from scripts.workers import is_gone, workers_of
from tests.shared import forks
from tests.shared.api import Answer, Api
from tests.shared.authority import Authority, Certificates, dns, email, uri
from tests.shared.callers import token_for
from tests.shared.waiting import ANSWER, REPLACEMENT, until
from tests.unit.test_config import GOOD

DENIED = (403, "forbidden")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def https(url: str) -> str:
    return url.replace("http://", "https://")


def caller(url: str, certificates: Certificates, name: str | None, **options: Any) -> Api:
    verify = str(certificates.authority.path)
    certificate = getattr(certificates, name) if name else None
    return Api.over_http(https(url), cert=certificate, verify=verify, **options)


@pytest.fixture(scope="module")
def url(environment: Any, serve: Any, certificates: Certificates) -> Iterator[str]:
    with serve(environment | certificates.settings) as url:
        yield url


def owner_of_a_new_key(api: Api) -> Any:
    return api.get(f"/keys/{api.create(kty='oct', alg='HS256')['kid']}").body["owner"]


def test_a_certificate_is_its_subject(url, certificates):
    assert owner_of_a_new_key(caller(url, certificates, "alice")) == "mtls:dns:alice.example"
    assert owner_of_a_new_key(caller(url, certificates, "bob")) == "mtls:subject:CN=bob,O=Example"


@pytest.mark.parametrize("name", [None, "rogue", "expired"])
def test_who_has_no_good_certificate_is_not_connected(url, certificates, name):
    with pytest.raises(requests.ConnectionError):
        caller(url, certificates, name).get("/keys")


def test_the_published_keys_too_are_behind_the_certificate(url, certificates):
    assert caller(url, certificates, "alice").get("/.well-known/jwks.json").status == 200


def test_no_header_makes_a_certificate_of_another(url, certificates):
    pem = Path(certificates.bob[0]).read_text()
    headers = {
        "X-Client-Verify": "SUCCESS",
        "X-Client-Cert": quote(pem),
        "X-Proxy-Secret": "guess",
        "X-Real-IP": "127.0.0.1",
        "X-Forwarded-User": "bob",
        "SSL-Client-Cert": pem.replace("\n", " "),
        "X_Client_Cert": quote(pem),
    }
    api = caller(url, certificates, "alice", headers=headers)
    assert owner_of_a_new_key(api) == "mtls:dns:alice.example"


def deleted(api: Api) -> str:
    kid: str = api.create(kty="oct", alg="HS256", destroy_after="P1D")["kid"]
    assert api.delete(kid).status == 204
    return kid


@pytest.mark.parametrize("page", [{"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil"}])
def test_no_page_of_others_restores_a_key_by_a_certificate_alone(url, certificates, page):
    api = caller(url, certificates, "alice")
    kid = deleted(api)
    assert api.request("POST", f"/keys/{kid}/restore", headers=page).refusal == DENIED
    assert api.get(f"/keys/{kid}").body["state"] == "destroying"
    asked_for = page | {"Content-Type": "application/json"}
    assert api.request("POST", f"/keys/{kid}/restore", headers=asked_for).status == 200


def test_a_browser_asks_for_leave_before_all_else_that_changes_something():
    endpoints = [one for resource in API for one in resource.endpoints]
    at_once = [one.name for one in endpoints if one.method == "POST" and one.body is None]
    assert at_once == ["keys.restore"]


@pytest.mark.parametrize("page", [{}, {"Sec-Fetch-Site": "same-origin"}])
def test_programs_and_own_pages_restore_a_key_by_a_certificate(url, certificates, page):
    api = caller(url, certificates, "alice")
    assert api.request("POST", f"/keys/{deleted(api)}/restore", headers=page).status == 200


def test_plain_http_is_not_spoken(url):
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}/v1/crypto/keys", timeout=ANSWER.seconds)


def exacting(url: str, certificates: Certificates) -> ssl.SSLSocket:
    """Return a connection that fails if it is cut off: if it ends and TLS does not."""
    context = ssl.create_default_context(cafile=str(certificates.authority.path))
    context.load_cert_chain(*certificates.alice)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    address = urlsplit(url)
    channel = socket.create_connection((address.hostname, address.port), timeout=ANSWER.seconds)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return context.wrap_socket(channel, server_hostname="localhost", suppress_ragged_eofs=False)


LAST = {
    "what asks for it": b"GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "a large answer": b"GET /openapi.json HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "what is no request": b"NONSENSE\r\n\r\n",
    "what is not read": b"NONSENSE\r\n\r\n" + bytes(100_000),
}


@pytest.mark.parametrize("last", LAST.values(), ids=LAST)
def test_a_connection_is_not_cut_off_after(url, certificates, last):
    with exacting(url, certificates) as client:
        client.sendall(last)
        assert client.recv(8) == b"HTTP/1.1"
        while client.recv(65_536):
            pass


def test_who_ends_a_connection_is_answered(url, certificates):
    with exacting(url, certificates) as client:
        client.unwrap()


def test_beside_other_ways_a_certificate_is_one_of_several(environment, serve, certificates):
    both = environment | certificates.settings | {"JOSE_HSM_AUTH": "token,mtls"}
    with serve(both, workers=1) as url:
        assert owner_of_a_new_key(caller(url, certificates, "alice")) == "mtls:dns:alice.example"
        answer = caller(url, certificates, None).get("/keys")
        assert answer.refusal == (401, "unauthorized")
        bearer = token_for(environment, "token:carol")
        for name in (None, "alice"):  # what a request bears counts, not what it comes over
            assert owner_of_a_new_key(caller(url, certificates, name, bearer=bearer)) == (
                "token:carol"
            )
        spoiled = caller(url, certificates, "alice", bearer="jh_" + "A" * 43)
        assert spoiled.get("/keys").refusal == (401, "unauthorized")
        with pytest.raises(requests.ConnectionError):
            caller(url, certificates, "rogue", bearer=bearer).get("/keys")


def test_a_connection_does_not_outlive_its_certificate(environment, serve, tmp_path):
    certificates = Certificates(tmp_path / "certificates")
    with serve(environment | certificates.settings, workers=1) as url:
        api = connected_briefly(url, certificates)
        answer = until(lambda: other_than_200(api.get("/keys")))
        assert answer.refusal == (401, "unauthorized")


def connected_briefly(url: str, certificates: Certificates) -> Api:
    """Return a caller on a connection whose certificate ends in some seconds.

    How many it takes to connect depends on the machine: so they are more each time.
    """
    for seconds in (4, 16, 64):
        brief = certificates.authority.issue(
            "brief", common_name="x", names=[dns("brief.example")], ended=-timedelta(0, seconds)
        )
        api = Api.over_http(https(url), cert=brief, verify=str(certificates.authority.path))
        with suppress(requests.ConnectionError):
            if api.get("/keys").status == 200:
                return api
    pytest.fail("no certificate lasted until it was used")


def other_than_200(answer: Answer) -> Answer | None:
    return None if answer.status == 200 else answer


def test_who_comes_while_a_file_is_bad_begins_with_what_was_good(environment, tmp_path):
    certificates = Certificates(tmp_path / "certificates")
    with forks.server(environment | certificates.settings, workers=1) as running:
        Path(certificates.server[0]).write_text("half of a")
        old = workers_of(running.process.pid)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: all(map(is_gone, old)), within=REPLACEMENT)
        assert caller(running.url, certificates, "alice").get("/keys").status == 200


SUBJECTS = [
    ({"names": [email("a@b.example"), dns("a.example"), uri("spiffe://a/b")]}, "uri:spiffe://a/b"),
    ({"names": [uri("spiffe://first"), uri("spiffe://second")]}, "uri:spiffe://first"),
    ({"names": [email("a@b.example"), dns("a.example")]}, "dns:a.example"),
    ({"names": [email("a@b.example")], "common_name": "admin"}, "email:a@b.example"),
    ({"common_name": "admin"}, "subject:CN=admin"),
    ({"common_name": "a,O=b", "organization": "c+d"}, "subject:CN=a\\,O=b,O=c\\+d"),
    ({"common_name": "dns:a.example"}, "subject:CN=dns:a.example"),
]


@pytest.mark.parametrize(("members", "name"), SUBJECTS, ids=[name for _, name in SUBJECTS])
def test_a_certificate_names_its_first_uri_name_address_or_whole_subject(tmp_path, members, name):
    path, _ = Authority(tmp_path, "authority").issue("client", **members)
    certificate = x509.load_pem_x509_certificate(Path(path).read_bytes())
    assert subject_of(certificate.public_bytes(Encoding.DER)).name == name


@pytest.mark.parametrize("members", [{}, {"common_name": "a\nb"}])
def test_a_certificate_that_names_nobody_is_refused(tmp_path, members):
    path, _ = Authority(tmp_path, "authority").issue("client", **members)
    der = ssl.PEM_cert_to_DER_cert(Path(path).read_text())
    with pytest.raises(ValueError, match="name"):
        subject_of(der)


URI: dict[str, Any] = {"names": [uri("urn:a")]}
UNREADABLE = {
    "a version that there is not": (URI, "a003020102", "a003020105"),
    "a name of EDI": (URI, "860575726e3a61", "a505a1030c0161"),
    "two lists of names": (URI, "0603551d25", "0603551d11"),
    "a common name in bits": ({"common_name": "admin"}, "0c0561646d696e", "03050061646d69"),
}
"""What a good one is made of, and what becomes of its bytes."""


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_certificate_that_cannot_be_read_proves_nobody(tmp_path, fault):
    members, told, odd_one = UNREADABLE[fault]
    path, _ = Authority(tmp_path, "authority").issue("client", **members)
    good = ssl.PEM_cert_to_DER_cert(Path(path).read_text())
    odd = good.replace(bytes.fromhex(told), bytes.fromhex(odd_one))
    assert odd != good
    nobody: frozenset[Any] = frozenset()
    roles = Roles(everybody=nobody, admins=nobody, auditors=nobody)
    claim = CertificateWay(lambda _: odd, roles).claim(Request(EnvironBuilder().get_environ()))
    assert claim
    with pytest.raises(Refused, match="certificate"):
        claim.prove()


MTLS = GOOD | {"JOSE_HSM_AUTH": "mtls"}
DIRECT = {
    "JOSE_HSM_TLS_CERTIFICATE": "/c",
    "JOSE_HSM_TLS_KEY": "/k",
    "JOSE_HSM_TLS_CLIENT_CA": "/ca",
}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MTLS, "JOSE_HSM_TLS_CLIENT_CA"),
        (MTLS | DIRECT | {"JOSE_HSM_PROXY_SECRET_FILE": "/s"}, "JOSE_HSM_TLS_CLIENT_CA"),
        (
            MTLS | {"JOSE_HSM_TLS_CLIENT_CA": "/ca"},
            "set JOSE_HSM_TLS_CERTIFICATE, too",
        ),
        (GOOD | {"JOSE_HSM_TLS_CERTIFICATE": "/c"}, "set both"),
    ],
)
def test_certificates_need_somebody_who_verifies_them(settings, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_env(settings)


def test_a_secret_that_is_none_is_refused(tmp_path):
    config = Config.from_env(MTLS | {"JOSE_HSM_PROXY_SECRET_FILE": str(tmp_path / "secret")})
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read_proxy_secret()
    (tmp_path / "secret").write_text("short\n")
    with pytest.raises(ConfigError, match="16 characters"):
        config.read_proxy_secret()
