"""JWTs: what makes somebody of a token, and everything that does not."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from flask import Flask
from joserfc.jwk import KeyParameters, KeySet, OKPKey, RSAKey

from app.auth import issuer_keys, jwks_source
from app.auth.issuer_keys import IssuerKeys
from app.auth.jwks_source import reader_of
from app.auth.jwt import JwtWay
from app.auth.schemes import Refused, Roles
from app.config import Config
from app.errors import IssuerUnavailable
from app.http.router import AUDIENCE
from app.settings import ConfigError
from tests.http.test_attempts import Clock
from tests.shared.api import Api, b64u
from tests.shared.callers import token_for
from tests.shared.issuer import BAD, Issuer, http_answer, jwks_server, slow_server
from tests.shared.waiting import PATIENCE_SECONDS, until
from tests.unit.test_config import GOOD

UNAUTHORIZED = (401, "unauthorized")
FLASK = Flask("test")


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture(scope="module")
def jwks(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("issuer") / "jwks.json"
    path.write_text(issuer.jwks)
    return path


@pytest.fixture(scope="module")
def url(environment: Any, serve: Any, issuer: Issuer, jwks: Path) -> Iterator[str]:
    with serve(environment | issuer.settings(jwks)) as url:
        yield url


def way_of(issuer: Issuer, location: object, **changed: str) -> JwtWay:
    settings = GOOD | dict(issuer.settings(str(location)))
    config = Config.from_env(settings | {f"JOSE_HSM_JWT_{k.upper()}": changed[k] for k in changed})
    return JwtWay(config, IssuerKeys(str(location)), Roles.of(config), AUDIENCE)


def principal(way: JwtWay, token: str) -> Any:
    headers = {"Authorization": f"Bearer {token}"}
    with FLASK.test_request_context(headers=headers) as context:
        claim = way.claim(context.request)
    assert claim is not None
    return claim.prove()


@pytest.mark.parametrize(
    ("key", "header"),
    [
        ("rsa", {}),
        ("rsa", {"alg": "PS256"}),
        ("ec", {"alg": "ES256", "kid": "ec"}),
        ("okp", {"alg": "EdDSA", "kid": "okp"}),
        ("okp", {"alg": "EdDSA", "kid": None}),  # the only one of its kind
        ("okp", {"alg": "Ed25519", "kid": "okp"}),  # RFC 9864
        ("rsa", {"typ": "at+jwt", "x5t": "ignored"}),
        ("rsa", {"ver": "1.0", "cat": "x", "url": 7, "zip": None}),  # RFC 7515 §4
        ("rsa", {"jku": "https://evil.example/jwks", "x5u": "no URL"}),
        ("rsa", {"jwk": {"kty": "RSA"}, "x5c": ["A" * 1500], "x5t#S256": 7}),
    ],
)
def test_a_good_token_is_its_subject(issuer, url, key, header):
    token = issuer.token(key=getattr(issuer, key), header=header)
    api = Api.over_http(url, bearer=token)
    kid = api.create(kty="oct", alg="HS256")["kid"]
    assert api.get(f"/keys/{kid}").body["owner"] == "jwt:alice"
    assert Api.over_http(url, bearer=issuer.token("bob")).get(f"/keys/{kid}").status == 403


def test_no_header_of_a_token_makes_the_service_fetch(issuer, jwks):
    with jwks_server(issuer.jwks.encode) as (url, fetches):
        for header in ({"jku": url}, {"x5u": url}, {"jku": url, "kid": "unknown"}):
            with suppress(Refused):
                principal(way_of(issuer, jwks), issuer.token(header=header))
        assert not fetches


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_nobody(issuer, url, name):
    answer = Api.over_http(url, bearer=BAD[name](issuer)).get("/keys")
    assert answer.refusal == UNAUTHORIZED
    assert answer.body["description"] == "Authentication required"


def test_a_token_is_not_a_principal_of_another_kind(issuer, url, environment):
    kid = Api.over_http(url, bearer=token_for(environment, "token:alice")).create(
        kty="oct", alg="HS256"
    )["kid"]
    for subject in ("alice", "token:alice"):
        api = Api.over_http(url, bearer=issuer.token(subject))
        assert api.get(f"/keys/{kid}").status == 403


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> int:
    """The time, which stands still."""
    now = int(time.time())
    monkeypatch.setattr("time.time", lambda: float(now))
    return now


def token_of(issuer: Issuer, instant: int, now: int) -> str:
    """Return a token that ends at ``instant``, or begins then if that is to come."""
    times: dict[str, Any] = {"exp": instant} if instant < now else {"nbf": instant, "iat": instant}
    return issuer.token(**times)


@pytest.mark.parametrize("seconds", [-59, 59])
def test_clocks_may_differ_by_a_minute(issuer, jwks, now, seconds):
    token = token_of(issuer, now + seconds, now)
    assert principal(way_of(issuer, jwks), token) == "jwt:alice"


@pytest.mark.parametrize("seconds", [-61, 61])
def test_clocks_do_not_differ_by_more(issuer, jwks, now, seconds):
    with pytest.raises(Refused):
        principal(way_of(issuer, jwks), token_of(issuer, now + seconds, now))


@pytest.mark.parametrize("roles", [["admin", "auditor", "root", 1], "admin auditor root"])
def test_roles_are_in_a_claim(issuer, jwks, roles):
    found = principal(way_of(issuer, jwks), issuer.token(roles=roles))
    assert found.roles == {"admin", "auditor", "creator"}
    found = principal(way_of(issuer, jwks, roles_claim="groups"), issuer.token(roles=roles))
    assert found.roles == {"creator"}


@pytest.mark.parametrize("roles", [["auditor"], "auditor"])
def test_the_claim_of_the_roles_may_be_nested(issuer, jwks, roles):
    way = way_of(issuer, jwks, roles_claim="realm_access.roles")
    for claims in ({"realm_access": {"roles": roles}}, {"realm_access.roles": roles}):
        assert principal(way, issuer.token(**claims)).roles == {"auditor", "creator"}
    for claims in ({"realm_access": roles}, {"realm_access": {}}, {"roles": roles}):
        assert principal(way, issuer.token(**claims)).roles == {"creator"}


@pytest.mark.parametrize("roles", [None, 1, {"admin": True}, [["admin"]], "ADMIN"])
def test_what_lists_no_roles_gives_none(issuer, jwks, roles):
    found = principal(way_of(issuer, jwks), issuer.token(roles=roles))
    assert found.roles == {"creator"}


def test_another_claim_may_name_the_principal(issuer, jwks):
    way = way_of(issuer, jwks, principal_claim="client_id")
    assert principal(way, issuer.token(client_id="robot")) == "jwt:robot"
    assert principal(way, issuer.token(client_id="robot", sub=None)) == "jwt:robot"
    for changed in ({"client_id": None}, {"client_id": 7}, {"client_id": "robot", "sub": 7}):
        with pytest.raises(Refused):
            principal(way, issuer.token(**changed))


def test_the_type_is_checked_if_it_is_configured(issuer, jwks):
    way = way_of(issuer, jwks, typ="at+jwt")
    for typ in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert principal(way, issuer.token(header={"typ": typ})) == "jwt:alice"
    for other in (None, "JWT", 1):
        with pytest.raises(Refused):
            principal(way, issuer.token(header={"typ": other}))


def test_a_token_is_verified_once_for_each_state_of_the_keys(issuer, tmp_path, monkeypatch):
    path = tmp_path / "jwks.json"
    path.write_text(issuer.jwks)
    way, token = way_of(issuer, path), issuer.token()
    prove = Mock(wraps=way._prove)
    monkeypatch.setattr(way, "_prove", prove)
    for _ in range(3):
        assert principal(way, token) == "jwt:alice"
    assert prove.call_count == 1
    others = KeySet([RSAKey.generate_key(2048, {"kid": "rsa"})]).as_dict(private=False)
    path.write_text(json.dumps(others) + " ")
    with pytest.raises(Refused):
        principal(way, token)


KEY_ALGS = [None, "EdDSA", "Ed25519"]


@pytest.mark.parametrize("key_alg", KEY_ALGS)
@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_ed25519_has_two_names(issuer, tmp_path, key_alg, alg):
    members: KeyParameters = {"kid": "two"}
    if key_alg:
        members["alg"] = key_alg
    key = OKPKey.generate_key("Ed25519", members)
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    signing = OKPKey.import_key(key.as_dict(private=True) | {"alg": alg})
    token = issuer.token(key=signing, header={"alg": alg, "kid": "two"})
    assert principal(way_of(issuer, path), token) == "jwt:alice"


def test_another_curve_is_not_ed25519(issuer, tmp_path):
    key = OKPKey.generate_key("Ed448", {"kid": "448"})
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    way = way_of(issuer, path)
    token = issuer.token(key=key, header={"alg": "EdDSA", "kid": "448"})
    assert principal(way, token) == "jwt:alice"
    with pytest.raises(Refused):
        principal(way, issuer.token(key=key, header={"alg": "Ed25519", "kid": "448"}))


def test_what_was_proven_ends_with_the_token(issuer, jwks, monkeypatch):
    way, token = way_of(issuer, jwks), issuer.token()
    assert principal(way, token) == "jwt:alice"
    real = time.time
    monkeypatch.setattr("time.time", lambda: real() + 661)
    with pytest.raises(Refused):
        principal(way, token)


def test_a_file_that_is_broken_or_gone_is_no_new_state(issuer, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(issuer.jwks)
    way = way_of(issuer, path)
    assert principal(way, issuer.token()) == "jwt:alice"
    path.write_text("{")
    assert principal(way, issuer.token("bob")) == "jwt:bob"
    path.unlink()
    assert principal(way, issuer.token("carol")) == "jwt:carol"
    with pytest.raises(IssuerUnavailable):
        principal(way_of(issuer, path), issuer.token())


# --- A set with keys that are not for us ---

X = b64u(b"\1" * 32)
UNREADABLE: dict[str, Any] = {
    "brainpool": {"kty": "EC", "crv": "brainpoolP256r1", "x": X, "y": X, "kid": "odd"},
    "certificate only": {"kty": "RSA", "x5c": ["MIIB"], "kid": "odd"},
    "off the curve": {"kty": "EC", "crv": "P-256", "x": X, "y": X, "kid": "odd"},
    "no kty": {"n": X, "e": "AQAB", "kid": "odd"},
    "unknown kty": {"kty": "AKP", "alg": "ML-DSA-44", "pub": X, "kid": "odd"},
    "numeric kid": {"kty": "RSA", "n": b64u(b"\xff" * 256), "e": "AQAB", "kid": 7},
    "short": {"kty": "RSA", "n": b64u(b"\xff" * 128), "e": "AQAB", "kid": "odd"},
    "base64 of nothing": {"kty": "OKP", "crv": "Ed25519", "x": "!", "kid": "odd"},
    "curve of another type": {"kty": "EC", "crv": ["P-256"], "x": X, "y": X, "kid": "odd"},
    "no object": "odd",
}


@pytest.mark.filterwarnings("ignore:Key size:joserfc.errors.SecurityWarning")
@pytest.mark.parametrize("name", UNREADABLE)
def test_a_key_that_cannot_be_read_is_left_out_and_named_once(issuer, tmp_path, caplog, name):
    path = tmp_path / "jwks.json"
    readable = json.loads(issuer.jwks)["keys"]
    path.write_text(json.dumps({"keys": [UNREADABLE[name], *readable]}))
    way = way_of(issuer, path)
    for subject in ("alice", "bob"):
        assert principal(way, issuer.token(subject)) == f"jwt:{subject}"
    kid = {"numeric kid": "'7'", "no object": "None"}.get(name, "'odd'")
    (line,) = (one.message for one in caplog.records if one.name == issuer_keys.__name__)
    assert line.startswith(f"the key {kid} of the issuer is left out: ")


def test_a_set_without_a_key_that_can_be_read_is_no_new_state(issuer, tmp_path):
    path = tmp_path / "jwks.json"
    path.write_text(issuer.jwks)
    way = way_of(issuer, path)
    assert principal(way, issuer.token()) == "jwt:alice"
    path.write_text(json.dumps({"keys": [UNREADABLE["brainpool"]]}))
    assert principal(way, issuer.token("bob")) == "jwt:bob"


# --- Keys from a URL ---


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch in this process may take as long as the machine does."""
    monkeypatch.setattr(jwks_source, "_FETCH_SECONDS", PATIENCE_SECONDS)


class Source:
    """What an issuer serves now."""

    def __init__(self, issuer: Issuer) -> None:
        self.issuer = issuer
        self.content: bytes | None = issuer.jwks.encode()

    def __call__(self) -> bytes | None:
        return self.content


def test_keys_are_fetched_once_and_again_when_they_are_old(issuer):
    clock, source = Clock(), Source(issuer)
    with jwks_server(source) as (url, fetches):
        keys = IssuerKeys(url, now=clock)
        for _ in range(3):
            keys.current()
        assert len(fetches) == 1
        clock.now += 301
        keys.current()
        keys.current()
        assert len(fetches) == 2


def test_an_unknown_key_is_looked_for_at_a_bounded_rate(issuer):
    clock, source = Clock(), Source(issuer)
    with jwks_server(source) as (url, fetches):
        keys = IssuerKeys(url, now=clock)
        state = keys.current()
        clock.now += 11
        for _ in range(20):
            keys.newer_than(state)
        assert len(fetches) == 2
        source.content = json.dumps(KeySet([issuer.ec]).as_dict(private=False)).encode()
        clock.now += 11
        assert [key.kid for key in keys.newer_than(state).keys] == ["ec"]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"keys":[]}', b"[]", b"x" * 2_000_000])
def test_the_last_good_keys_are_kept_while_the_source_is_down(issuer, content):
    clock, source = Clock(), Source(issuer)
    with jwks_server(source) as (url, fetches):
        keys = IssuerKeys(url, now=clock)
        state = keys.current()
        source.content = content
        clock.now += 3600
        for _ in range(5):
            assert keys.current() is state
        assert len(fetches) == 2  # not with every request
        source.content = issuer.jwks.encode() + b" "
        clock.now += 11
        assert keys.current().version == state.version + 1


def test_kept_keys_are_believed_for_a_day(issuer):
    clock, source = Clock(), Source(issuer)
    with jwks_server(source) as (url, _):
        keys = IssuerKeys(url, now=clock)
        state = keys.current()
        source.content = None
        clock.now += 86400
        assert keys.current() is state
        clock.now += 1
        with pytest.raises(IssuerUnavailable):
            keys.current()
        source.content = issuer.jwks.encode()
        clock.now += 11
        assert keys.current() is state


@pytest.mark.parametrize("believed", [200.0, 5.0])
def test_keys_that_are_believed_for_less_are_read_again_sooner(issuer, believed):
    clock = Clock()
    with jwks_server(Source(issuer)) as (url, fetches):
        keys = IssuerKeys(url, believed_seconds=believed, now=clock)
        for _ in range(5):
            assert len(keys.current().keys) == 4
            clock.now += believed * 0.6
        assert len(fetches) == 5


def test_a_file_is_believed_as_long_as_it_is_there(issuer, tmp_path):
    clock, path = Clock(), tmp_path / "jwks.json"
    path.write_text(issuer.jwks)
    keys = IssuerKeys(str(path), now=clock, believed_seconds=1000)
    state = keys.current()
    for _ in range(10):
        clock.now += 900
        assert keys.current() is state
    path.unlink()
    clock.now += 900
    assert keys.current() is state
    clock.now += 101
    with pytest.raises(IssuerUnavailable):
        keys.current()


def test_keys_are_believed_where_no_thread_is_to_be_had(issuer, monkeypatch):
    def refuse(_thread: object) -> None:
        raise RuntimeError("can't start new thread")

    clock = Clock()
    with jwks_server(Source(issuer)) as (url, _):
        keys = IssuerKeys(url, now=clock)
        state = keys.current()
        clock.now += 301
        monkeypatch.setattr("app.auth.jwks_source.Thread.start", refuse)
        assert keys.current() is state


SLOW = {
    "head": lambda jwks: http_answer(jwks, head="X-Padding: " + 3000 * "x" + "\r\n"),
    "body": lambda jwks: http_answer(3000 * " " + jwks),
}


@pytest.mark.parametrize("part", SLOW)
def test_the_time_of_a_fetch_is_that_of_the_whole(issuer, monkeypatch, part):
    answer = SLOW[part](issuer.jwks)
    with slow_server(answer, pieces=1, pause_seconds=0) as url:
        assert len(IssuerKeys(url).current().keys) == 4
    monkeypatch.setattr(jwks_source, "_FETCH_SECONDS", 0.3)
    with (
        slow_server(answer, pieces=40, pause_seconds=0.1) as url,
        pytest.raises(IssuerUnavailable),
    ):
        IssuerKeys(url).current()


def test_a_source_that_speaks_no_http_is_as_one_that_is_down(issuer):
    clock = Clock()
    with (
        jwks_server(Source(issuer)) as (url, _),
        slow_server(b"nonsense\r\n\r\n", pieces=1, pause_seconds=0) as nonsense,
    ):
        keys = IssuerKeys(url, now=clock)
        state = keys.current()
        keys._read = reader_of(nonsense)
        clock.now += 301
        assert keys.current() is state


def test_who_has_no_keys_waits_a_second_of_a_fetch_and_no_longer(issuer, monkeypatch):
    clock, begun, goes_on = Clock(), threading.Event(), threading.Event()
    keys = IssuerKeys("http://127.0.0.1:1/jwks.json", now=clock)

    def read() -> bytes:
        begun.set()
        goes_on.wait(PATIENCE_SECONDS)
        return issuer.jwks.encode()

    keys._read = read
    first = threading.Thread(target=keys.current)
    first.start()
    assert begun.wait(PATIENCE_SECONDS)
    with pytest.raises(IssuerUnavailable):  # after a second, while the first goes on
        keys.current()
    clock.now += 5
    with pytest.raises(IssuerUnavailable):
        keys.current()
    monkeypatch.setattr(issuer_keys, "_PATIENCE_SECONDS", PATIENCE_SECONDS)  # it is that second
    with ThreadPoolExecutor() as pool:
        clock.now -= 4.9
        second = pool.submit(keys.current)
        goes_on.set()
        assert len(second.result().keys) == 4
    first.join()


def test_who_lacks_a_key_waits_for_who_looks_for_it(issuer, monkeypatch):
    monkeypatch.setattr(issuer_keys, "_PATIENCE_SECONDS", PATIENCE_SECONDS)
    clock, begun, goes_on = Clock(), threading.Event(), threading.Event()
    with jwks_server(Source(issuer)) as (url, _):
        keys = IssuerKeys(url, now=clock)
        state = keys.current()

    def read() -> bytes:
        begun.set()
        goes_on.wait(PATIENCE_SECONDS)
        return json.dumps(KeySet([issuer.ec]).as_dict(private=False)).encode()

    keys._read = read
    clock.now += 11
    with ThreadPoolExecutor() as pool:
        first = pool.submit(keys.newer_than, state)
        assert begun.wait(PATIENCE_SECONDS)
        assert keys.current() is state  # others go on
        second = pool.submit(keys.newer_than, state)
        until(lambda: second.running() or second.done())
        goes_on.set()
        assert first.result() is second.result() is keys.current() is not state


def test_a_slow_issuer_holds_up_nobody_else(environment, serve, issuer):
    answer = http_answer(issuer.jwks)
    with (
        slow_server(answer, pieces=len(answer), pause_seconds=0.5) as jwks,
        serve(environment | issuer.settings(jwks), workers=1) as url,
        ThreadPoolExecutor(max_workers=40) as pool,
    ):
        good = Api.over_http(url, bearer=token_for(environment, "token:alice"))
        waiting = [
            pool.submit(Api.over_http(url, bearer=issuer.token()).get, "/keys") for _ in range(40)
        ]
        assert good.get("/keys").status == 200
        assert {request.result().refusal for request in waiting} == {(503, "unavailable")}


def test_a_source_that_has_never_answered_is_503_and_then_works(environment, serve, issuer):
    source = Source(issuer)
    source.content = None
    with (
        jwks_server(source) as (jwks, _),
        serve(environment | issuer.settings(jwks), workers=1) as url,
    ):
        api = Api.over_http(url, bearer=issuer.token())
        answer = api.get("/keys")
        assert answer.refusal == (503, "unavailable")
        assert "Retry-After" in answer.headers


def test_redirects_are_not_followed(issuer):
    with jwks_server(issuer.jwks.encode) as (elsewhere, fetches):
        moved = f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\nContent-Length: 0\r\n\r\n"
        with (
            slow_server(moved.encode(), pieces=1, pause_seconds=0) as url,
            pytest.raises(IssuerUnavailable),
        ):
            IssuerKeys(url).current()
        assert not fetches


def test_the_scheme_of_a_url_may_be_in_capitals(issuer):  # RFC 3986 §3.1
    with jwks_server(issuer.jwks.encode) as (url, _):
        assert len(IssuerKeys(url.replace("http:", "HTTP:")).current().keys) == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"JOSE_HSM_JWT_ISSUER": ""}, "set JOSE_HSM_JWT_ISSUER"),
        ({"JOSE_HSM_JWT_AUDIENCE": ""}, "set JOSE_HSM_JWT_AUDIENCE"),
        ({"JOSE_HSM_JWT_JWKS": ""}, "set JOSE_HSM_JWT_JWKS"),
        ({"JOSE_HSM_JWT_JWKS": "http://example.com/"}, "must be a file or an https URL"),
        ({"JOSE_HSM_JWT_JWKS": "ftp://example.com/"}, "must be a file or an https URL"),
        ({"JOSE_HSM_JWT_JWKS": "https://[example/"}, "must be a file or an https URL"),
        ({"JOSE_HSM_JWT_JWKS": "https:///jwks"}, "must be a file or an https URL"),
        ({"JOSE_HSM_JWT_JWKS": "https://me:pass@example.com/"}, "URL, without a user"),
        ({"JOSE_HSM_JWT_ALGORITHMS": "RS256,HS256"}, "must be a comma list of"),
        ({"JOSE_HSM_JWT_ALGORITHMS": "none"}, "must be a comma list of"),
    ],
)
def test_settings_that_are_not_safe_are_refused(issuer, changed, message):
    with pytest.raises(ConfigError, match=message):
        Config.from_env(GOOD | dict(issuer.settings("/jwks.json")) | changed)
