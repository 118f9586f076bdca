"""The service answers as its OpenAPI document says."""

from typing import Any

import pytest
import requests

from scripts.openapi import examples
from scripts.openapi.examples import play
from scripts.throwaway import ROOT
from tests.documents.test_openapi import OPERATIONS, validator
from tests.shared.waiting import ANSWER


@pytest.mark.parametrize("name", ["openapi.json", "openapi-strict.json"])
def test_the_documents_are_served_as_they_are(server, name):
    address = f"{server}/{name}"
    answer = requests.get(address, timeout=ANSWER.seconds)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.content == (ROOT / "docs" / name).read_bytes()
    assert "max-age" in answer.headers["Cache-Control"]
    again = requests.get(
        address, headers={"If-None-Match": answer.headers["ETag"]}, timeout=ANSWER.seconds
    )
    assert (again.status_code, again.content) == (304, b"")


DOCUMENTS = {"openapi_document", "openapi_strict"}


@pytest.fixture(scope="module")
def exchanges(server: str) -> list[dict[str, Any]]:
    return play(server)


@pytest.mark.softhsm
def test_everything_can_be_asked_as_the_examples_do(exchanges):
    """The scenario of the examples, played again: the same answers, and as documented."""
    assert {told["operation"] for told in exchanges} == OPERATIONS.keys() - DOCUMENTS
    for told, then in zip(exchanges, examples.EXCHANGES, strict=True):
        assert (told["title"], told["status"]) == (then["title"], then["status"])
        response = OPERATIONS[told["operation"]]["responses"][str(told["status"])]
        for media in response.get("content", {}).values():
            validator(media["schema"]).validate(told["response"])
