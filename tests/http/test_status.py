"""The page for operators: who sees it, what it shows, and that it never asks the token."""

import base64
import math
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import requests
from sqlalchemy import update

from app.observability import Kind, Outcomes
from app.observability.latency import Bucket, Latency, latencies
from app.operator.plots import HEIGHT, Plot
from app.registry import Key, Origin, Registry, Residency, State, revision_at
from app.registry.tables import keys
from app.rights import Principal, Role
from app.service import service_of
from hsm import Hsm, KeySpec
from tests.shared.api import PREFIX
from tests.shared.callers import token_for
from tests.shared.waiting import STATE

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "


def get(url: str, path: str = "/status", **headers: str) -> requests.Response:
    return requests.get(url + path, headers=headers, timeout=STATE.seconds)


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


# --- Who sees it ---


def test_without_authentication_everybody_sees_it(server):
    answer = get(server)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Security-Policy"].startswith(POLICY)
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_api_page_is_as_closed_to_others_and_open_to_all(callers):
    page = get(callers.url, "/docs")
    assert page.headers["Content-Security-Policy"] == (
        f"{POLICY}script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
    )
    part = get(callers.url, "/docs/swagger-ui/swagger-ui.css")
    for answer in (page, part):
        assert answer.headers["Cache-Control"] == "no-cache"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
    known = {"If-None-Match": part.headers["ETag"]}
    assert get(callers.url, "/docs/swagger-ui/swagger-ui.css", **known).status_code == 304
    for missing in ("/docs/no.js", "/docs/..%2fstatus.py"):
        absent = get(callers.url, missing)
        assert (absent.status_code, absent.json()["error"]) == (404, "not_found")


def test_a_browser_may_give_the_token_as_the_password(callers, environment):
    auditor = token_for(environment, "token:auditor", roles=[Role.AUDITOR])
    for headers in (basic("", auditor), basic("whoever", auditor)):
        assert get(callers.url, **headers).status_code == 200
    assert "seen by token:auditor" in get(callers.url, **basic("", auditor)).text
    creator = token_for(environment, "token:alice", roles=[Role.CREATOR])
    refused = get(callers.url, **basic("", creator))
    assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "headers",
    [
        *({}, basic("", "jh_" + "A" * 43), basic("jh_" + "A" * 43, "")),
        *({"Authorization": "Basic !"}, {"Authorization": "Basic é"}),
    ],
    ids=["nothing", "unknown", "as the user", "torn", "not ASCII"],
)
def test_who_cannot_be_known_is_asked_for_a_password(callers, headers):
    refused = get(callers.url, **headers)
    assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized")
    challenge = refused.headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="jose-hsm", Basic realm="jose-hsm", charset="UTF-8"'


def test_the_api_takes_no_password(callers, environment):
    """Browsers send one again by themselves, also when another site makes them ask."""
    admin = token_for(environment, "token:admin", roles=[Role.ADMIN])
    refused = get(callers.url, f"{PREFIX}/keys", **basic("", admin))
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="jose-hsm"'


def test_passwords_are_not_guessed_faster_than_tokens(environment, serve):
    own = environment | {"JOSE_HSM_AUTH": "token", "JOSE_HSM_AUTH_FAILURES": "2"}
    with serve(own, workers=1) as url:
        guesses = [get(url, **basic("", f"jh_{number}")).status_code for number in range(4)]
    assert guesses == [401, 401, 429, 429]


def test_pages_can_be_switched_off(environment, serve):
    none = {"JOSE_HSM_PAGES": "0", "JOSE_HSM_ADMIN_PAGE": "0"}
    with serve(environment | none, workers=1) as url:
        for path in ("/status", "/docs", "/docs/docs.js"):
            assert (get(url, path).status_code, get(url, path).json()["error"]) == (
                404,
                "not_found",
            )


# --- What it shows ---


def key(kty: str, state: State, *, expired: bool = False, **members: Any) -> Key:
    return Key(
        kid=uuid4(),
        kid_public=None,
        owner="owner",
        spec=KeySpec(kty=kty, **members),
        origin=Origin.GENERATED,
        residency=Residency.TOKEN,
        state=state,
        expires_at=datetime.now(UTC) - timedelta(days=1) if expired else None,
    )


def test_keys_are_counted_by_type_and_state(application, registry_url):
    registry = Registry(registry_url, host="host")
    used = key("EC", State.ACTIVE, crv="P-256")
    for one in (
        used,
        key("EC", State.ACTIVE, crv="P-256"),
        key("EC", State.COMPROMISED, crv="P-256"),
        key("RSA", State.PENDING, bits=3072),
        key("RSA", State.WRAPPING, bits=3072),
        key("RSA", State.ACTIVE, bits=2048),
        key("oct", State.ACTIVE, bits=256),
        key("oct", State.DEACTIVATED, bits=256),
        key("oct", State.DESTROYING, bits=256),
    ):
        registry.insert(one)
    late = key("oct", State.ACTIVE, bits=256)
    registry.insert(late)
    assert registry.change(late, expires_at=datetime.now(UTC) - timedelta(days=1))
    with registry._database.writing() as connection:
        connection.execute(update(keys).where(keys.c.kty == "EC").values(created_at=LONG_AGO))
    registry.uses.note(used.kid)
    registry.uses.write()
    shown = replace(service_of(application).status, registry=registry).describe()
    assert [(line.title, list(line.numbers), line.total, line.idle) for line in shown["keys"]] == [
        ("EC P-256", [2, 0, 1, 0, 0, 0, 0], 3, 2),
        ("RSA 2048", [1, 0, 0, 0, 0, 0, 0], 1, 0),
        ("RSA 3072", [0, 0, 0, 0, 1, 0, 1], 2, 0),
        ("oct 256", [1, 2, 0, 1, 0, 0, 0], 4, 0),
    ]
    assert dict(shown["versions"])["Registry schema"] == revision_at(registry_url).newest
    registry._database.engine.dispose()


@pytest.mark.softhsm
def test_it_says_which_versions_there_are(application):
    versions = dict(service_of(application).status.describe()["versions"])
    assert versions["jose-hsm"]
    assert versions["PKCS#11 library"].startswith("SoftHSM Implementation of PKCS11 2.")
    assert versions["PKCS#11"] == "2.40"
    assert versions["Token firmware"].startswith("2.")


def test_algorithms_are_shown_with_the_reason_why_not(application):
    shown = application.test_client().get("/status").text
    assert "<code>RS256</code>" in shown
    assert "no: the token answers MechanismInvalid" in shown


def test_while_token_and_registry_are_away_the_page_says_so(application, config, monkeypatch):
    """The token of this ``Status`` has never been opened: nothing that is shown comes from it."""
    away = Registry("sqlite:////nonexistent/registry.db", host="host")
    status = service_of(application).status
    blind = replace(status, hsm=Hsm(config.hsm_settings), registry=away)
    service = replace(service_of(application), status=blind)
    monkeypatch.setitem(application.extensions, "jose_hsm", service)
    answer = application.test_client().get("/status")
    assert answer.status_code == 200
    for text in ("starting: the token is being opened", "the registry does not answer"):
        assert text in answer.text
    assert "Not known while the token is away" in answer.text


def test_only_who_may_read_every_key_sees_it(application, config):
    status = service_of(application).status
    status.require_reader(Principal("anonymous"))
    closed = replace(status, config=replace(config, auth=("token",)))
    for principal in (Principal("anonymous"), Principal("token:alice", {Role.CREATOR})):
        with pytest.raises(Exception, match="Access denied"):
            closed.require_reader(principal)
    closed.require_reader(Principal("token:alice", {Role.AUDITOR}))


def test_it_says_how_soon_answers_were_made(application, local):
    local.create(kty="oct", alg="HS256")
    shown = application.test_client().get("/status").text
    within = r'<span class="latency">(half within [\d.]+ m?s, )?99 of 100 within [\d.]+ m?s</span>'
    for title in ("All requests", "Create, import, unwrap"):
        assert re.search(rf"<b>{title}</b> [\d,]+ done[^\n]*{within}", shown)
    assert 'http-equiv="refresh"' not in shown


def test_latency_is_read_off_the_buckets_of_a_kind():
    kinds = {"signing.sign": Kind.SIGN, "signing.csr": Kind.SIGN, "status.show": Kind.PAGE}
    buckets = [
        Bucket("signing.sign", 0.001, 40),
        Bucket("signing.sign", 0.01, 97),
        Bucket("signing.sign", math.inf, 99),
        Bucket("signing.csr", 0.001, 1),
        Bucket("signing.csr", 0.01, 1),
        Bucket("signing.csr", math.inf, 1),
        Bucket("status.show", math.inf, 100),
    ]
    slow = Latency(0.01, math.inf)
    assert latencies(buckets, kinds) == ({Kind.SIGN: slow}, slow)
    assert latencies(buckets[:0], kinds) == ({}, None)


def test_bars_fill_the_plot_and_show_the_one_failure_among_many():
    quiet, busy = Outcomes(done=10), Outcomes(done=10_000, refused=1, failed=1)
    plot = Plot("title", [Outcomes()] * 58 + [quiet, busy])
    assert (plot.total, plot.most) == (Outcomes(10_010, 1, 1), 10_002)
    low, high = plot.bars
    assert (low.minutes_ago, high.minutes_ago) == (1, 0)
    assert [part.outcome for part in high.rectangles] == ["done", "refused", "failed"]
    assert min(part.height for part in high.rectangles + low.rectangles) > 1.5
    assert sum(part.height for part in high.rectangles) == pytest.approx(HEIGHT, abs=0.1)
    assert all(0 <= part.y <= HEIGHT for part in high.rectangles + low.rectangles)
