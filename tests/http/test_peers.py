"""JOSE libraries and the service read one another as docs/interoperability.md says."""

from typing import Any

import pytest

from scripts.interoperability.page import PAGE, missing_rows, rows
from scripts.interoperability.peers import PEERS
from scripts.interoperability.trial import Keys
from scripts.interoperability.trial import trial as trial_of
from tests.shared.api import Api

BUILT = {"go-jose", "nimbus-jose-jwt"}
"""Their programs take half a minute to build: make faults runs them."""

NAMES = [pytest.param(name, marks=[pytest.mark.long] * (name in BUILT)) for name in PEERS]


@pytest.fixture(scope="module")
def keys(live: Api) -> Keys:
    return Keys(lambda path, body: live.post(path, body).body)


@pytest.mark.softhsm
@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_a_library_and_the_service_make_of_one_another(
    name: str, live: Api, keys: Any
) -> None:
    peer = PEERS[name]
    if peer.missing:
        pytest.skip(f"not installed: {', '.join(peer.missing)}")
    findings = trial_of(peer, lambda path, body: live.post(path, body).body, keys)
    page = PAGE.read_text("utf-8").splitlines()
    assert [row for row in page if row.startswith(f"| {name} |")] == [
        *rows(name, findings),
        *missing_rows(name, findings),
    ]
    assert any(finding.reason is None for finding in findings)
