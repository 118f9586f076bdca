"""The pages in a real browser: used as people use them, and nothing asked of anybody else.

With ``SCREENSHOTS=DIRECTORY`` what they look like is kept there.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import requests
from selenium.webdriver.remote.webelement import WebElement

from app.rights import Role
from tests.shared.api import Api
from tests.shared.browser import AXE, CHROMIUM, DRIVER, Browser, chromium
from tests.shared.callers import Callers, token_for
from tests.shared.chains import chain_for, public_key, x5c
from tests.shared.waiting import STATE, until

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium is not installed")

WIDTHS = (1280, 390)
KEPT = os.environ.get("SCREENSHOTS")
SCHEMES = ("light", "dark") if KEPT else ("light",)
Answer = tuple[int, Any]
DATA = "SGVsbG8gdG9rZW4h"
ES256 = {"kty": "EC", "crv": "P-256", "alg": "ES256"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        browser.resize(WIDTHS[0])
        yield browser


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(KEPT or tmp_path_factory.mktemp("screenshots"))
    path.mkdir(parents=True, exist_ok=True)
    return path


def look(browser: Browser, path: Path, *, of: WebElement | None = None) -> None:
    """Nothing of the page may be beside the window, at each width; keep pictures if asked to."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            browser.resize(width, scheme=scheme)
            if KEPT:
                (path.parent / f"{path.name}-{scheme}-{width}.png").write_bytes(browser.picture(of))
            assert browser.width == width
    browser.resize(WIDTHS[0])


def require_own(browser: Browser, url: str, *, expected: tuple[str, ...] = ()) -> list[str]:
    """Nobody but the service at ``url`` was asked, and all complaints are ``expected``."""
    seen = browser.seen()
    origins = {urlsplit(asked).netloc.rpartition("@")[2] for asked in seen.urls}
    assert {urlsplit(asked).scheme for asked in seen.urls} <= {"http", "data"}
    assert origins - {""} == {urlsplit(url).netloc}
    complaints = [text for text in seen.complaints if not any(known in text for known in expected)]
    assert complaints == []
    return seen.urls


class ApiPage:
    """The page /docs, where somebody tries requests."""

    def __init__(self, browser: Browser, url: str) -> None:
        self._browser = browser
        browser.open(f"{url}/docs")

    def authorize(self, token: str) -> None:
        """Give an API token, instead of the one before."""
        press, find = self._browser.press, self._browser.find
        press(".auth-wrapper .authorize")
        form = find(".auth-container")
        if not form.find_elements("css selector", "input"):
            press(".btn-done, .auth-btn-wrapper button:first-child", form)
        find(".auth-container input").send_keys(token)
        press(".auth-container .authorize")
        press(".modal-ux .close-modal")

    def ask(self, operation: str, body: dict[str, Any]) -> Answer:
        """Send ``body``; return the status and the body that the page shows."""
        block = self._block(operation)
        if "is-open" not in str(block.get_attribute("class")):
            self._browser.press(".opblock-summary-control", block)
        field = self._browser.find("textarea.body-param__text", block)
        self._write(field, json.dumps(body))
        if block.find_elements("css selector", ".btn-clear"):
            self._browser.press(".btn-clear", block)
        self._browser.press(".execute", block)
        shown = self._browser.find(".live-responses-table .response", block)
        status = self._browser.find(".response-col_status", shown).text.split()[0]
        text = self._browser.find(".response-col_description code", shown)
        return int(status), json.loads(str(text.get_property("textContent")))

    def curl(self, operation: str) -> str:
        """Return the command that the button copies."""
        command = self._browser.find(".curl-command", self._block(operation))
        self._browser.click(".copy-to-clipboard button", command)
        return until(self._browser.clipboard)

    def _block(self, operation: str) -> WebElement:
        return self._browser.find(f"#operations-{operation.partition('_')[0]}-{operation}")

    def _write(self, field: Any, text: str) -> None:
        """Type, but at once: the page only believes what is set as its own script sets it."""
        self._browser.run(
            "Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, 'value')"
            ".set.call(arguments[0], arguments[1]);"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            field,
            text,
        )


class Tried(NamedTuple):
    """What somebody saw on /docs who signed there, before and after typing in a token."""

    key: dict[str, Any]
    signed: Answer
    curl: str
    kept: list[Any]
    """Cookies and all else that a browser keeps, while a token was typed in."""


@pytest.fixture(scope="module")
def tried(browser: Browser, callers: Callers, environment: Any, shots: Path) -> Tried:
    key = callers.alice.create(**ES256)
    page = ApiPage(browser, callers.url)
    assert browser.find(".auth-wrapper .authorize.unlocked")
    look(browser, shots / "docs")
    page.authorize(token_for(environment, "token:alice"))
    signed = page.ask("signing_sign", {"kid": key["kid"], "alg": "ES256", "data": DATA})
    curl = page.curl("signing_sign")
    look(browser, shots / "docs-tried", of=browser.find("#operations-signing-signing_sign"))
    kept = browser.run("return [document.cookie, localStorage.length, sessionStorage.length]")
    require_own(browser, callers.url)
    return Tried(key, signed, curl, kept)


def verified(callers: Callers, tried: Tried, signed: dict[str, Any]) -> bool:
    members = {"kid": tried.key["kid_public"], "alg": "ES256", "data": DATA}
    return callers.alice.ok("/verify", signed | members)["valid"]


def test_the_api_can_be_tried_with_ones_token(tried, callers):
    assert tried.signed[0] == 200
    assert verified(callers, tried, tried.signed[1])


def test_what_was_tried_can_be_copied_as_curl(tried, callers):
    assert verified(callers, tried, typed(tried.curl))


def typed(command: str) -> Any:
    """Return what a command prints, as JSON."""
    assert command.startswith("curl ")
    done = subprocess.run(
        ["bash", "-c", f"{command} --silent --show-error"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


def test_a_token_that_was_typed_in_is_not_kept(tried):
    assert tried.kept == ["", 0, 0]


@pytest.mark.long  # the form for keys of all kinds takes ten seconds of a processor
def test_a_key_can_be_made_on_the_page_and_used_by_whom_it_belongs_to(
    browser, callers, environment
):
    alice, bob = (token_for(environment, f"token:{name}") for name in ("alice", "bob"))
    page = ApiPage(browser, callers.url)
    page.authorize(alice)
    _, key = page.ask("keys_create", ES256)
    assert key["crv"] == "P-256"
    kid = typed(page.curl("keys_create"))["kid"]
    assert kid != key["kid"]
    assert callers.alice.get(f"/keys/{kid}").body["alg"] == "ES256"
    to_sign = {"kid": key["kid"], "alg": "ES256", "data": DATA}
    _, signed = page.ask("signing_sign", to_sign)
    verified = page.ask("signing_verify", signed | {"data": DATA})
    assert verified == (200, {"kid": key["kid_public"], "valid": True})
    page.authorize(bob)
    refusal = {"error": "forbidden", "description": "Access denied"}
    assert page.ask("signing_sign", to_sign) == (403, refusal)
    browser.open(f"{callers.url}/docs")
    assert browser.find(".auth-wrapper .authorize.unlocked")
    require_own(browser, callers.url, expected=("status of 403",))


def test_the_state_of_the_service_is_seen(browser, callers, environment, shots):
    auditor = token_for(environment, "token:auditor", roles=[Role.AUDITOR])
    done, refused = counted(callers, auditor)
    kid = callers.alice.create(kty="oct", alg="HS256")["kid"]
    for _ in range(20):
        callers.alice.ok("/mac", {"kid": kid, "alg": "HS256", "data": DATA})
    assert callers.alice.post("/mac", {"kid": kid, "alg": "HS384", "data": DATA}).status == 422

    def are_sampled() -> bool:
        done_now, refused_now = counted(callers, auditor)
        return done_now >= done + 20 and refused_now > refused

    until(are_sampled)
    host = urlsplit(callers.url).netloc
    browser.open(f"http://whoever:{auditor}@{host}/status")
    assert browser.find("#state").text == "ready"
    assert browser.find("#registry").text == "ready"
    assert browser.find("#workers").text == "2"
    assert "seen by token:auditor" in browser.find("header").text
    (mac,) = (each for each in browser.find_all("figure") if each.text.startswith("MAC"))
    bars = mac.find_elements("css selector", "rect")
    assert {bar.get_attribute("class") for bar in bars} >= {"done", "refused"}
    assert all(bar.size["height"] > 1 for bar in bars)
    assert "refused" in mac.text
    rows = (each.text for each in browser.find_all("#keys ~ table tbody tr"))
    (numbers,) = (row.split()[2:] for row in rows if row.startswith("oct 256 "))
    *by_state, total, idle = map(number, numbers)
    assert by_state[0] >= 1
    assert total == sum(by_state)
    assert idle == 0
    look(browser, shots / "status")
    urls = require_own(browser, callers.url)
    assert not [url for url in urls if "/v1/" in url]


def counted(callers: Callers, auditor: str) -> tuple[int, int]:
    """Return how many MACs the page says were done and refused in the last hour."""
    headers = {"Authorization": f"Bearer {auditor}"}
    page = requests.get(f"{callers.url}/status", headers=headers, timeout=STATE.seconds).text
    found = re.search(r'<b>MAC</b> ([\d,]+) done(?:, <span class="refused">([\d,]+) )?', page)
    assert found, page
    return number(found[1]), number(found[2] or "0")


def number(shown: str) -> int:
    return int(shown.replace(",", ""))


def test_the_state_of_the_service_is_not_for_everybody(browser, callers, environment):
    host = urlsplit(callers.url).netloc
    bob = token_for(environment, "token:bob")
    browser.open(f"http://whoever:{bob}@{host}/status")
    assert json.loads(browser.find("body").text)["error"] == "forbidden"
    require_own(browser, callers.url, expected=("status of 403", "favicon.ico"))


# --- The admin page ---

checked = pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed")


class AdminPage:
    """The page /admin, where somebody has signed in."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self._url = f"{url}/admin"

    def sign_in(self, token: str) -> None:
        """Type an API token into the form that whoever is not known gets."""
        self.open("")
        self.fill_in(token=token)
        self.send("sign-in")
        self.browser.find("table, #none")

    def sign_out(self) -> None:
        """Leave, so that the next test can sign in."""
        self.send("sign-out")
        self.browser.find("#token")

    def open(self, path: str) -> None:
        """Show a part of the page."""
        self.browser.open(self._url + path)

    def fill_in(self, **fields: str) -> None:
        """Type into fields by their ids, or choose."""
        for name, text in fields.items():
            self.browser.find(f"#{name}").send_keys(text)

    def send(self, path: str) -> None:
        """Press the button of the form that goes to a path that ends with ``path``."""
        self.browser.press(f'form[action$="{path}"] button')


@checked
def test_somebody_makes_grants_deactivates_and_destroys_a_key(browser, callers, environment, shots):
    page = AdminPage(browser, callers.url)
    page.sign_in(token_for(environment, "token:alice"))
    assert browser.run("return document.cookie") == ""
    page.open("/create")
    page.fill_in(purpose="ES256 · EC P-256", name="Made by hand")
    page.send("/create")
    kid = browser.find(".facts code").text
    page.fill_in(principal="token:bob")
    for operation in ("sign", "read"):
        browser.press(f'input[value="{operation}"]')
    page.send("/grants")
    assert "token:bob" in browser.find("#grants ~ table").text
    page.fill_in(to="deactivated")
    page.send("/state")
    assert browser.find("#state.deactivated")
    look(browser, shots / "key")
    assert browser.barriers() == []
    page.fill_in(typed=kid)
    page.send("/destroy")
    browser.find("#key")
    assert callers.alice.get(f"/keys/{kid}").status == 404
    page.sign_out()
    require_own(browser, callers.url, expected=("status of 401",))


def filled(api: Api) -> tuple[str, str]:
    """Return a kid and the name of a key set with two versions, of which there is all to see."""
    kid = api.create(kty="EC", crv="P-256", alg="ES256", name="Invoices", tags=["billing"])["kid"]
    chain = x5c(chain_for(public_key(api, kid)))
    assert api.request("PUT", f"/keys/{kid}/certificate", json={"x5c": chain}).status == 200
    granted = {"operations": ["sign", "read"]}
    assert api.request("PUT", f"/keys/{kid}/grants/token:bob", json=granted).status == 200
    path, policy = f"/keysets/seen-{kid[:8]}", {"every": "P30D", "publish_ahead": "P2D"}
    body = {"kty": "EC", "crv": "P-256", "alg": "ES256", "rotation": policy | {"retain": "P10D"}}
    assert api.request("PUT", path, json=body).status == 200
    api.ok(f"{path}/rotate", {})
    until(lambda: len(api.get(path).body["versions"]) == 2)
    return kid, path


@checked
@pytest.mark.long
def test_nobody_is_kept_from_using_a_page_whatever_the_window(browser, callers, environment, shots):
    admin = token_for(environment, "token:admin", roles=[Role.ADMIN])
    token_for(environment, "token:soon", age=timedelta(days=-9))
    kid, keyset = filled(callers.admin)
    page = AdminPage(browser, callers.url)
    page.open("/sign-in")
    found = barriers_of(browser, shots / "sign-in")
    page.sign_in(admin)
    parts = {
        **{name: f"/{name}" for name in ("create", "keysets", "audit", "tokens")},
        "keys": "",
        "a-key": f"/keys/{kid}",
        "a-keyset": keyset,
        "an-error": "/keys/x",
    }
    for name, path in parts.items():
        page.open(path)
        found += barriers_of(browser, shots / f"admin-{name}")
    browser.open(f"http://whoever:{admin}@{urlsplit(callers.url).netloc}/status")
    found += barriers_of(browser, shots / "status")
    assert found == []


def barriers_of(browser: Browser, path: Path) -> list[str]:
    """Return what is serious on the page that is shown, at each width, light and dark."""
    found = []
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            browser.resize(width, scheme=scheme)
            (path.parent / f"{path.name}-{scheme}-{width}.png").write_bytes(browser.picture())
            found += [f"{path.name} {scheme} {width}: {each}" for each in browser.barriers()]
            found += [f"{path.name} {width}: too wide"] * (browser.width != width)
    browser.resize(WIDTHS[0])
    return found
