"""The admin page: what it shows, what its forms do, and whose forms it takes."""

import re
from datetime import timedelta
from typing import Any

import pytest
import requests

from app.auth.api_tokens import _hash
from app.auth.sessions import COOKIE
from app.config import Config
from app.registry import Registry
from app.rights import Role
from app.service import service_of
from tests.shared.api import PREFIX, Api
from tests.shared.callers import Callers, token_for
from tests.shared.chains import chain_for, public_key, x5c
from tests.shared.waiting import ANSWER, STATE

FORM = {"Origin": "http://localhost"}
UNKNOWN_KID = "0b8f9f3c-6f6c-4f0e-9d55-3f0a5d2c7e11"


@pytest.fixture
def page(application: Any) -> Any:
    """A browser of somebody on this machine, where no authentication is configured."""
    return application.test_client()


@pytest.fixture
def key(local: Api) -> dict[str, Any]:
    return local.create(kty="EC", crv="P-256", alg="ES256", name="<i>mine</i>", tags=["team"])


def fill_in(page: Any, path: str, **fields: Any) -> Any:
    return page.post(path, data=fields, headers=FORM)


def lines_of(application: Any, kid: str) -> list[dict[str, Any]]:
    """Return the lines of the audit log that name a key, the newest first."""
    log = service_of(application).audit_log
    assert log
    return [line for line in log.last(1000) if kid in {line.get("kid"), line.get("new_kid")}]


# --- What it shows ---


def test_keys_are_listed_filtered_and_found_by_any_name(page, key, local):
    alias = f"by-name-{key['kid']}"
    local.create(kty="oct", alg="HS256", tags=["others"], alias=alias)
    shown = page.get("/admin?tag=team&kty=&state=active&limit=200").text
    assert key["kid"] in shown
    assert "others" not in shown
    assert "There are none" in page.get("/admin?tag=nobody").text
    first = page.get("/admin?limit=1&state=active").text
    (more,) = re.findall(r'rel="next" href="(admin[^"]+)"', first)
    assert "state=active" in more
    assert "after=" in more
    for name in (key["kid"], key["kid_public"], f" {key['kid']} "):
        found = page.get("/admin", query_string={"key": name})
        assert (found.status_code, found.headers["Location"]) == (303, f"admin/keys/{key['kid']}")
    assert page.get(f"/admin?key={alias}").status_code == 303
    assert page.get("/admin?key=no-such").status_code == 404


def test_the_page_of_a_key_has_all_that_is_known_of_it(page, key, local):
    chain = x5c(chain_for(public_key(local, key["kid"])))
    assert (
        local.request("PUT", f"/keys/{key['kid']}/certificate", json={"x5c": chain}).status == 200
    )
    shown = page.get(f"/admin/keys/{key['kid']}").text
    public = local.get(f"/keys/{key['kid']}").body["jwk"]
    wanted = (key["kid_public"], "EC P-256", "ES256", "team", "anonymous", "never")
    for text in (*wanted, "BEGIN PUBLIC KEY", public["x5t#S256"], f"{len(chain)} in the chain"):
        assert text in shown


def test_what_callers_call_a_key_is_text(page, key):
    for path in ("/admin?tag=team", f"/admin/keys/{key['kid']}"):
        shown = page.get(path).text
        assert "&lt;i&gt;mine&lt;/i&gt;" in shown
        assert "<i>" not in shown


def test_no_page_has_anything_of_others_or_that_runs(page, key, local):
    keyset = {"kty": "EC", "crv": "P-256", "alg": "ES256"}
    assert local.request("PUT", "/keysets/shown", json=keyset).status == 200
    paths = (
        "sign-in",
        "create",
        f"keys/{key['kid']}",
        "keysets",
        "keysets/shown",
        "audit",
        "tokens",
    )
    for path in ("", *(f"/{path}" for path in paths), f"/keys/{UNKNOWN_KID}"):
        answer = page.get(f"/admin{path}")
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; base-uri 'none'; form-action 'self'; frame-")
        assert policy.endswith("style-src 'self'; img-src 'self'")
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        # A PEM may have // in it, an address of ours never.
        elsewhere = r'="[^"]*//'
        assert re.findall(rf"<script|<style|style=|\son[a-z]+=|{elsewhere}", answer.text) == []
        assert answer.text.startswith("<!doctype html>")


def test_the_end_of_the_audit_log_is_shown_the_newest_first(page, key):
    shown = page.get("/admin/audit").text
    newest = re.findall(r"<tr><th scope=\"row\">([^<]+)</th>", shown)
    assert newest == sorted(newest, reverse=True)
    assert key["kid"] in shown


def test_an_audit_log_that_cannot_be_read_is_away(page, application, monkeypatch, tmp_path):
    monkeypatch.setattr(service_of(application).audit_log, "_path", str(tmp_path))
    answer = page.get("/admin/audit")
    assert answer.status_code == 503
    assert "the audit log cannot be" in answer.text


def test_api_tokens_that_end_soon_are_shown_the_first_one_first(page, environment):
    for name, days in (("late", 90), ("second", 20), ("first", 10), ("over", -1)):
        token_for(environment, f"token:{name}", age=timedelta(days=-days, minutes=-1))
    shown = re.findall(
        r'<th scope="row">token:(late|first|second|over)<', page.get("/admin/tokens").text
    )
    assert shown == ["first", "second"]


# --- What its forms do ---


def test_a_key_is_made_for_a_purpose_that_is_offered(page, local, application):
    offered = page.get("/admin/create").text
    assert "<option>HS512 · oct</option>" in offered
    assert "RSA1_5" not in offered
    fields = {"name": "made", "tags": "a b", "expires": "2099-12-31", "destroy_after": "P7D"}
    made = fill_in(page, "/admin/create", purpose="HS512 · oct", **fields)
    assert made.status_code == 303
    kid = made.headers["Location"].rpartition("/")[2]
    described = local.get(f"/keys/{kid}").body
    assert (described["alg"], described["name"], described["tags"]) == ("HS512", "made", ["a", "b"])
    assert described["expires"] == "2099-12-31T00:00:00Z"
    assert described["destroy_after"] == "P7D"
    assert lines_of(application, kid)[0]["endpoint"] == "admin_actions.create"
    for purpose in ("", "none", "RSA1_5 · RSA 2048"):
        assert fill_in(page, "/admin/create", purpose=purpose).status_code == 400


def test_a_key_is_granted_deactivated_destroyed_and_had_back(page, local, application):
    kid = local.create(kty="oct", alg="HS256", destroy_after="P1D")["kid"]
    of_key = f"/admin/keys/{kid}"
    granted = {"principal": "token:ci", "operations": ["mac", "read"]}
    for path, fields in (("grants", granted), ("state", {"state": "deactivated"})):
        answer = fill_in(page, f"{of_key}/{path}", **fields)
        assert (answer.status_code, answer.headers["Location"]) == (
            303,
            f"../../../admin/keys/{kid}",
        )
    assert local.get(f"/keys/{kid}").body["state"] == "deactivated"
    (grant,) = local.get(f"/keys/{kid}/grants").body["grants"]
    assert grant == {"principal": "token:ci", "operations": ["mac", "read"]}
    assert "mac, read" in page.get(of_key).text
    assert fill_in(page, f"{of_key}/grants", principal="token:ci").status_code == 303
    assert local.get(f"/keys/{kid}/grants").body["grants"] == []
    assert fill_in(page, f"{of_key}/destroy", typed=kid).status_code == 303
    assert "It was deleted" in page.get(of_key).text
    assert fill_in(page, f"{of_key}/restore").status_code == 303
    assert local.get(f"/keys/{kid}").body["state"] == "deactivated"
    done = [line["endpoint"] for line in lines_of(application, kid)]
    names = ("restore", "destroy", "grant", "change_state", "grant")
    assert done[:5] == [f"admin_actions.{name}" for name in names]


@pytest.mark.parametrize("typed", ["", "x", UNKNOWN_KID, "<kid_public>"])
def test_a_key_whose_kid_was_not_typed_in_is_not_destroyed(page, key, local, typed):
    refused = fill_in(page, f"/admin/keys/{key['kid']}/destroy", typed=key.get(typed[1:-1], typed))
    assert refused.status_code == 400
    assert "nothing was done" in refused.text
    assert local.get(f"/keys/{key['kid']}").body["state"] == "active"


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("state", {"state": "destroyed"}, 400),
        ("state", {}, 400),
        ("grants", {"principal": "nobody", "operations": "read"}, 400),
        ("grants", {"principal": "token:x", "operations": "manage"}, 400),
        ("restore", {}, 422),
    ],
)
def test_what_the_api_refuses_the_page_refuses(page, key, path, fields, status):
    refused = fill_in(page, f"/admin/keys/{key['kid']}/{path}", **fields)
    assert refused.status_code == status
    assert 'role="alert"' in refused.text
    assert "path" not in refused.text  # people fill in fields


@pytest.mark.parametrize("body", ["a=%ff", b"\xff", "&".join(f"f{n}=1" for n in range(101))])
def test_what_is_no_form_is_refused(page, body):
    media = {"Content-Type": "application/x-www-form-urlencoded"}
    assert page.post("/admin/create", data=body, headers=FORM | media).status_code == 400
    assert page.post("/admin/create", json={}, headers=FORM).status_code == 400


# --- Whose forms it takes ---


@pytest.mark.parametrize(
    ("headers", "is_taken"),
    [
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "http://localhost:3000"}, False),
        ({"Origin": "http://other.localhost"}, False),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "same-site"}, False),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"}, False),
        ({"Origin": "http://localhost", "Sec-Fetch-Site": "none"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "null"}, False),
        ({"Referer": "http://localhost/admin"}, False),
        ({}, False),
    ],
)
def test_forms_on_pages_of_others_do_nothing(page, key, local, headers, is_taken):
    answer = page.post(
        f"/admin/keys/{key['kid']}/state", data={"state": "compromised"}, headers=headers
    )
    assert answer.status_code == (303 if is_taken else 403)
    state = "compromised" if is_taken else "active"
    assert local.get(f"/keys/{key['kid']}").body["state"] == state


# --- Who has signed in ---


class Person:
    """Somebody with a browser, who signs in."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.browser = requests.Session()
        self.browser.headers["Origin"] = url

    def sign_in(self, token: str) -> requests.Response:
        return self.fill_in("/sign-in", token=token)

    def fill_in(self, path: str, **fields: str) -> requests.Response:
        return self.browser.post(
            f"{self.url}/admin{path}", data=fields, timeout=ANSWER.seconds, allow_redirects=False
        )

    def get(self, path: str = "/admin") -> requests.Response:
        return self.browser.get(self.url + path, timeout=STATE.seconds)


@pytest.fixture
def person(callers: Callers) -> Person:
    return Person(callers.url)


def test_who_signs_in_is_who_the_api_token_says(person, callers, environment):
    asked = person.get()
    assert asked.status_code == 401
    assert 'name="token"' in asked.text
    token = token_for(environment, "token:alice")
    signed_in = person.sign_in(f" {token} ")
    assert signed_in.status_code == 303
    cookie = signed_in.headers["Set-Cookie"]
    assert token not in cookie
    assert re.fullmatch(
        rf"{COOKIE}=[0-9a-f]{{16}}\.[0-9]{{10}}\.[0-9a-f]{{64}}; "
        r"Expires=[^;]+; Max-Age=3600; HttpOnly; SameSite=Strict",
        cookie,
    )
    own, other = (one.create(kty="oct", alg="HS256") for one in (callers.alice, callers.bob))
    shown = person.get()
    assert "token:alice" in shown.text
    assert "Audit log" not in shown.text
    assert person.get(f"/admin/keys/{own['kid']}").status_code == 200
    assert person.get(f"/admin/keys/{other['kid']}").status_code == 403
    assert person.fill_in(f"/keys/{other['kid']}/destroy", typed=other["kid"]).status_code == 403
    assert person.fill_in("/sign-out").status_code == 303
    assert person.get().status_code == 401


def test_all_workers_know_who_has_signed_in(person, environment):
    person.sign_in(token_for(environment, "token:alice"))
    cookies = person.browser.cookies.get_dict()
    for _ in range(20):  # connections, which any worker takes
        answer = requests.get(f"{person.url}/admin", cookies=cookies, timeout=STATE.seconds)
        assert answer.status_code == 200


def test_a_revoked_token_ends_its_sessions_at_once(person, environment):
    token = token_for(environment, "token:alice", roles=[Role.ADMIN])
    person.sign_in(token)
    assert person.get("/admin/audit").status_code == 200
    registry = Registry(Config.from_env(environment).registry_url, host="test")
    assert registry.credentials.revoke(_hash(token)[:16])
    registry._database.engine.dispose()
    assert person.get("/admin/audit").status_code == 401


def test_the_cookie_is_good_for_this_page_alone(person, environment):
    person.sign_in(token_for(environment, "token:admin", roles=[Role.ADMIN]))
    (cookie,) = person.browser.cookies
    assert cookie.path == "/admin"
    value = {COOKIE: cookie.value}
    for path in ("/status", f"{PREFIX}/keys"):
        answer = requests.get(person.url + path, cookies=value, timeout=STATE.seconds)
        assert answer.status_code == 401


def test_over_tls_the_cookie_is_never_sent_without(callers, environment):
    """The browser says that there is TLS: between a proxy and the service there may be none."""
    person = Person(callers.url)
    person.browser.headers.update({"Origin": "https://jose.example", "Host": "jose.example"})
    signed_in = person.sign_in(token_for(environment, "token:alice"))
    assert "; Secure; HttpOnly; SameSite=Strict" in signed_in.headers["Set-Cookie"]


@pytest.mark.parametrize(
    ("site", "status"), [(None, 403), ("cross-site", 403), ("same-origin", 303)]
)
def test_an_origin_that_is_no_address_is_nobody(person, environment, site, status):
    person.browser.headers.update(
        {"Origin": "http://["} | ({"Sec-Fetch-Site": site} if site else {})
    )
    assert person.sign_in(token_for(environment, "token:alice")).status_code == status


@pytest.mark.parametrize("change", ["id", "end", "mac", "form"])
def test_a_cookie_that_somebody_made_up_is_refused(person, environment, change):
    person.sign_in(token_for(environment, "token:alice"))
    token_id, end, mac = str(person.browser.cookies[COOKIE]).split(".")
    other = token_for(environment, "token:admin", roles=[Role.ADMIN])
    forged = {
        "id": (_hash(other)[:16], end, mac),
        "end": (token_id, str(int(end) + 1), mac),
        "mac": (token_id, end, "0" * 64),
        "form": (token_id, end),
    }[change]
    cookies = {COOKIE: ".".join(forged)}
    answer = requests.get(f"{person.url}/admin", cookies=cookies, timeout=STATE.seconds)
    assert answer.status_code == 401


def test_api_tokens_are_not_guessed_faster_at_the_page(environment, serve):
    own = environment | {"JOSE_HSM_AUTH": "token", "JOSE_HSM_AUTH_FAILURES": "2"}
    with serve(own, workers=1) as url:
        person = Person(url)
        guesses = [person.sign_in(f"jh_{number}") for number in range(4)]
        assert [guess.status_code for guess in guesses] == [401, 401, 429, 429]
        assert all('name="token"' in guess.text for guess in guesses)  # a good one is taken
        assert person.sign_in(token_for(environment, "token:alice")).status_code == 303
