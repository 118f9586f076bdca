"""Client certificates that nginx has verified: nobody else can say who is calling."""

import http.client
import json
import secrets
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

from scripts.throwaway import reserved_address
from tests.services.test_certificates import SUBJECTS, deleted, owner_of_a_new_key
from tests.services.test_nginx import NGINX, Reply, json_of, nginx
from tests.shared.api import PREFIX, Api
from tests.shared.authority import Certificates
from tests.shared.callers import token_for
from tests.shared.forks import server
from tests.shared.waiting import ANSWER

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")

UNAUTHORIZED = (401, "unauthorized")
SECRET = secrets.token_hex(32)
SWITCHED_ON = {
    "# ssl_client_certificate ": "ssl_client_certificate ",
    "# ssl_verify_client ": "ssl_verify_client ",
}
MAC = {"kty": "oct", "alg": "HS256"}

Headers = list[tuple[str, str]]


class Place(NamedTuple):
    """A service, the port of nginx before it, and where nginx reaches it."""

    port: int
    backend: str
    certificates: Certificates

    def caller(self, certificate: tuple[str, str] | None, **options: Any) -> Api:
        """Call through nginx."""
        verify = str(self.certificates.authority.path)
        return Api.over_http(
            f"https://127.0.0.1:{self.port}", cert=certificate, verify=verify, **options
        )

    def past(self, headers: Headers, method: str = "GET", body: Any = None) -> Reply:
        """Call the service itself, past nginx."""
        with closing(connection_to(self.backend)) as connection:
            connection.putrequest(method, f"{PREFIX}/keys")
            content = json.dumps(body).encode() if body else b""
            lengths = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
            for name, value in headers + lengths:
                connection.putheader(name, value)
            connection.endheaders(content)
            response = connection.getresponse()
            return Reply(response.status, response.headers, response.read())


def connection_to(backend: str) -> http.client.HTTPConnection:
    if not backend.startswith("unix:"):
        return http.client.HTTPConnection(backend, timeout=ANSWER.seconds)
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER.seconds)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(backend.removeprefix("unix:"))
    return connection


def settings(directory: Path) -> dict[str, str]:
    (directory / "secret").write_text(f"{SECRET}\n")
    return {
        "JOSE_HSM_AUTH": "mtls",
        "JOSE_HSM_PROXY_SECRET_FILE": str(directory / "secret"),
        "JOSE_HSM_AUTH_FAILURES": "100000",
    }


@contextmanager
def serving(
    directory: Path, environment: Mapping[str, str], backend: str, *, secret: str = SECRET
) -> Iterator[Place]:
    """nginx that sends ``secret`` and demands certificates, before a service at ``backend``."""
    certificates = Certificates(directory / "certificates")
    files = {
        "jose-hsm-secret.conf": f'proxy_set_header X-Proxy-Secret "{secret}";\n',
        "clients.pem": certificates.authority.path.read_text(),
        "fullchain.pem": Path(certificates.server[0]).read_text(),
        "privkey.pem": Path(certificates.server[1]).read_text(),
    }
    with (
        server(environment, bind=backend, workers=1),
        nginx(directory / "run", backend, SWITCHED_ON, files) as port,
    ):
        yield Place(port, backend, certificates)


@pytest.fixture(scope="module", params=["unix", "tcp"])
def place(request: Any, environment: Any, tmp_path_factory: Any) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("c")
    unix = nullcontext(f"unix:{directory}/http.sock")
    with (
        unix if request.param == "unix" else reserved_address() as backend,
        serving(directory, environment | settings(directory), backend) as place,
    ):
        yield place


def escaped(certificate: tuple[str, str]) -> str:
    return quote(Path(certificate[0]).read_text())


def told(place: Place, certificate: tuple[str, str] | None = None, **changes: Any) -> Headers:
    """What nginx says of a client with a good certificate, with ``changes``; ``None`` is left out.

    Several values are several headers of that name.
    """
    headers = {
        "X-Proxy-Secret": SECRET,
        "X-Client-Verify": "SUCCESS",
        "X-Client-Cert": escaped(certificate or place.certificates.bob),
    } | {name.replace("__", "-"): value for name, value in changes.items()}
    return [
        (name, value)
        for name, values in headers.items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
    ]


# --- Through nginx ---


@pytest.mark.parametrize(("members", "name"), SUBJECTS, ids=[name for _, name in SUBJECTS])
def test_a_certificate_is_whom_it_names(place, members, name):
    certificate = place.certificates.authority.issue("client", **members)
    assert owner_of_a_new_key(place.caller(certificate)) == f"mtls:{name}"


def test_no_page_of_others_restores_a_key_by_a_certificate_alone(place):
    api = place.caller(place.certificates.bob)
    path = f"/keys/{deleted(api)}/restore"
    foreign = {"Sec-Fetch-Site": "cross-site"}
    assert api.request("POST", path, headers=foreign).refusal == (403, "forbidden")
    assert api.request("POST", path).status == 200


@pytest.mark.parametrize("name", [None, "rogue", "expired", "early"])
def test_who_has_no_good_certificate_is_nobody(place, name):
    certificate = getattr(place.certificates, name) if name else None
    for method, path in (("GET", "/keys"), ("POST", "/keys"), ("POST", "/mac")):
        answer = place.caller(certificate).request(method, path)
        assert answer.refusal == UNAUTHORIZED
        assert answer.body["description"] == "Authentication required"
        assert answer.headers["WWW-Authenticate"] == 'ClientCertificate realm="jose-hsm"'


def test_a_certificate_opens_no_key_of_another(place):
    alice, bob = (place.caller(getattr(place.certificates, name)) for name in ("alice", "bob"))
    kid = alice.create(**MAC)["kid"]
    body = {"kid": kid, "alg": "HS256", "data": ""}
    assert alice.post("/mac", body).status == 200
    assert bob.post("/mac", body).refusal == (403, "forbidden")
    assert bob.get(f"/keys/{kid}").refusal == (403, "forbidden")


def test_published_keys_need_no_certificate(place):
    assert place.caller(None).get("/.well-known/jwks.json").status == 200


SPOOFS = {
    "verified": {"X-Client-Verify": "SUCCESS", "X-Client-Cert": "{bob}"},
    "with the secret": {
        "X-Proxy-Secret": SECRET,
        "X-Client-Verify": "SUCCESS",
        "X-Client-Cert": "{bob}",
    },
    "in lower case": {
        "x-proxy-secret": SECRET,
        "x-client-verify": "SUCCESS",
        "x-client-cert": "{bob}",
    },
    "underscores": {
        "X_Proxy_Secret": SECRET,
        "X_Client_Verify": "SUCCESS",
        "X_Client_Cert": "{bob}",
    },
    "certificate alone": {"X-Client-Cert": "{bob}"},
    "hop by hop": {"Connection": "close, X-Client-Cert, X-Client-Verify, X-Proxy-Secret"},
    "names of others": {
        "X-SSL-Client-Verify": "SUCCESS",
        "X-SSL-Client-Cert": "{bob}",
        "SSL-Client-Cert": "{bob}",
        "X-Forwarded-Client-Cert": "{bob}",
        "X-Forwarded-User": "mtls:subject:CN=bob,O=Example",
        "Remote-User": "mtls:subject:CN=bob,O=Example",
        "X-Real-IP": "127.0.0.1",
        "Forwarded": "for=127.0.0.1",
    },
}


@pytest.mark.parametrize("name", SPOOFS)
def test_no_header_that_nginx_is_sent_makes_a_client_another(place, name):
    bob, alice = place.caller(place.certificates.bob), place.certificates.alice
    body = {"kid": bob.create(**MAC)["kid"], "alg": "HS256", "data": ""}
    headers = {
        header: value.replace("{bob}", escaped(place.certificates.bob))
        for header, value in SPOOFS[name].items()
    }
    spoofing = place.caller(alice, headers=headers)
    assert owner_of_a_new_key(spoofing) == "mtls:dns:alice.example"  # location /
    assert spoofing.post("/mac", body).refusal == (403, "forbidden")  # another location
    unknown = place.caller(None, headers=headers)
    for path in ("/keys", "/mac"):
        assert unknown.post(path, body).refusal == UNAUTHORIZED


# --- Past nginx ---


def test_what_nginx_tells_is_believed(place):
    reply = place.past(told(place), "POST", MAC)
    assert reply.status == 200
    assert place.caller(place.certificates.bob).get(f"/keys/{json.loads(reply.body)['kid']}")
    reply = place.past(told(place, X__Client__Verify="NONE", X__Client__Cert=None))
    assert json_of(reply) == UNAUTHORIZED


UNTRUE: Mapping[str, dict[str, Any]] = {
    "no secret": {"X__Proxy__Secret": None},
    "empty secret": {"X__Proxy__Secret": ""},
    "wrong secret": {"X__Proxy__Secret": "0" * 64},
    "part of the secret": {"X__Proxy__Secret": SECRET[:-1]},
    "more than the secret": {"X__Proxy__Secret": SECRET + "0"},
    "secret that is not ASCII": {"X__Proxy__Secret": SECRET + "é"},
    "secret in capitals": {"X__Proxy__Secret": SECRET.upper()},
    "secret after another": {"X__Proxy__Secret": ["guess", SECRET]},
    "secret before another": {"X__Proxy__Secret": [SECRET, "guess"]},
    "secret twice": {"X__Proxy__Secret": [SECRET, SECRET]},
    "secret with underscores": {"X__Proxy__Secret": None, "X_Proxy_Secret": SECRET},
    "not verified": {"X__Client__Verify": None},
    "empty": {"X__Client__Verify": ""},
    "none": {"X__Client__Verify": "NONE"},
    "failed": {"X__Client__Verify": "FAILED:certificate has expired"},
    "lower case": {"X__Client__Verify": "success"},
    "more than success": {"X__Client__Verify": "SUCCESSFUL"},
    "quoted": {"X__Client__Verify": '"SUCCESS"'},
    "none and success": {"X__Client__Verify": "NONE,SUCCESS"},
    "success and none": {"X__Client__Verify": "SUCCESS, NONE"},
    "none, then success": {"X__Client__Verify": ["NONE", "SUCCESS"]},
    "success, then none": {"X__Client__Verify": ["SUCCESS", "NONE"]},
    "success twice": {"X__Client__Verify": ["SUCCESS", "SUCCESS"]},
    "success with underscores": {"X__Client__Verify": None, "X_Client_Verify": "SUCCESS"},
    "both spellings": {"X__Client__Verify": "NONE", "X_Client_Verify": "SUCCESS"},
    "no certificate": {"X__Client__Cert": None},
    "empty certificate": {"X__Client__Cert": ""},
    "nonsense": {"X__Client__Cert": "nonsense"},
    "nonsense in PEM": {
        "X__Client__Cert": quote("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    },
    "not ASCII": {"X__Client__Cert": "%FF%C3%A9"},
    "a null": {"X__Client__Cert": "%00"},
}


@pytest.mark.parametrize("name", UNTRUE)
def test_whatever_else_the_service_is_told_is_refused(place, name):
    reply = place.past(told(place, **UNTRUE[name]))
    assert json_of(reply) == UNAUTHORIZED
    assert reply.headers["WWW-Authenticate"] == 'ClientCertificate realm="jose-hsm"'


def test_two_certificates_are_none(place):
    alice, bob = escaped(place.certificates.alice), escaped(place.certificates.bob)
    for value in ([alice, bob], [alice, alice], alice + bob, f"{alice},{bob}"):
        assert json_of(place.past(told(place, X__Client__Cert=value))) == UNAUTHORIZED
    underscores: dict[str, Any] = {"X__Client__Cert": None, "X_Client_Cert": bob}
    assert json_of(place.past(told(place, **underscores))) == UNAUTHORIZED


def test_a_certificate_that_has_expired_since_is_refused(place):
    assert json_of(place.past(told(place, place.certificates.expired))) == UNAUTHORIZED


def test_whoever_reaches_the_service_itself_is_nobody(place):
    assert json_of(place.past([])) == UNAUTHORIZED


# --- Beside ---


def test_nginx_without_the_secret_is_nobody(environment, tmp_path):
    own, wrong = environment | settings(tmp_path), "0" * 64
    with reserved_address() as backend, serving(tmp_path, own, backend, secret=wrong) as place:
        for certificate in (None, place.certificates.alice):
            assert place.caller(certificate).get("/keys").refusal == UNAUTHORIZED


def test_what_a_request_bears_counts_and_its_failures_by_the_true_address(environment, tmp_path):
    several = settings(tmp_path) | {"JOSE_HSM_AUTH": "token,mtls", "JOSE_HSM_AUTH_FAILURES": "3"}
    with (
        reserved_address() as backend,
        serving(tmp_path, environment | several, backend) as place,
    ):
        bearer = token_for(environment, "token:carol")
        alice = place.certificates.alice
        assert owner_of_a_new_key(place.caller(alice)) == "mtls:dns:alice.example"
        assert owner_of_a_new_key(place.caller(alice, bearer=bearer)) == "token:carol"
        bad = "jh_" + "A" * 43

        def status(number: int) -> int:
            headers = {"X-Real-IP": f"10.0.0.{number}", "Authorization": f"Bearer {bad}"}
            return place.caller(alice, headers=headers).get("/keys").status

        assert [status(number) for number in range(5)] == [401, 401, 401, 429, 429]
        for told_by_nginx, expected in (("10.0.0.9", 401), ("127.0.0.1", 429)):
            headers = [("X-Proxy-Secret", SECRET), ("X-Real-IP", told_by_nginx)]
            reply = place.past([*headers, ("Authorization", f"Bearer {bad}")])
            assert reply.status == expected
