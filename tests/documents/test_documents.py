"""The documents say what is: their commands run and print it, their links lead somewhere."""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pytest

from scripts.settings_table import settings_table
from scripts.throwaway import ROOT, make_token
from tests.shared.api import Api
from tests.shared.documents import DOCUMENTS, NOT_RUN, rows, shown_by, typed
from tests.shared.forks import server

ELSEWHERE = {"docs/authentication.md": "tests/documents/test_authentication_page.py"}
"""Documents whose commands need more than one service: who runs them."""

SESSIONS = [
    name for name, document in DOCUMENTS.items() if document.session and name not in ELSEWHERE
]
MADE = ("docs/api.md", "docs/errors.md", "docs/interoperability.md", "docs/benchmarks/")
"""Documents that programs write."""

PROSE = ("text", "json", "python", "javascript", "yaml", "nginx", "ini", "sql")
"""Languages of blocks that nobody types into a shell."""


class Installation(NamedTuple):
    """A service and the settings with which it was started."""

    url: str
    settings: Mapping[str, str]


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One service for the commands of all documents, which has been used: it has an audit log."""
    settings = make_token(tmp_path_factory.mktemp("documents") / "state")
    with server(settings, workers=1) as running:
        Api.over_http(running.url).create(kty="oct", alg="HS256")
        yield Installation(running.url, settings)


@pytest.mark.parametrize("name", SESSIONS)
def test_the_commands_run_and_print_what_is_said(name, installation, tmp_path):
    document = DOCUMENTS[name]
    done = typed(document, installation.url, installation.settings, tmp_path)
    assert done.returncode == 0, done
    rest = done.stdout
    for printed in document.printed:
        found = printed.search(rest)
        assert found, (printed.pattern, rest)
        rest = rest[found.end() :]
    errors = [line for line in done.stdout.splitlines() if '"error"' in line]
    assert all(any(printed.search(line) for printed in document.printed) for line in errors), errors


def test_there_are_commands_and_outputs_to_look_at():
    assert {"README.md", "docs/operating.md"} <= set(SESSIONS)
    assert len(DOCUMENTS["README.md"].printed) > 2


def test_documents_with_services_of_their_own_have_a_test():
    assert all((ROOT / path).is_file() and DOCUMENTS[name] for name, path in ELSEWHERE.items())


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_not_run_says_why(name):
    for block in DOCUMENTS[name].blocks:
        if block.language not in {"sh", *PROSE}:
            assert block.language == "console", block
            assert block.above.startswith(NOT_RUN), block


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_command_is_overlooked(name):
    document = DOCUMENTS[name]
    assert len(document.blocks) * 2 == document.text.count("```")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_code_hides_from_the_tests_in_an_indented_block(name):
    assert not re.search(r"^\n {4}\S", DOCUMENTS[name].prose, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if not name.startswith(MADE)])
def test_a_line_is_short_but_for_rows_of_tables_and_addresses(name):
    for line in DOCUMENTS[name].prose.splitlines():
        assert len(line) <= 120 or line.startswith("|") or "://" in line, line


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    document = DOCUMENTS[name]
    for link in document.links:
        path, _, anchor = link.partition("#")
        target = (document.path.parent / path).resolve() if path else document.path
        assert target.exists(), link
        if anchor:
            assert anchor in DOCUMENTS[str(target.relative_to(ROOT))].anchors, link


def test_every_document_is_in_the_index():
    index = DOCUMENTS["docs/README.md"]
    linked = {(index.path.parent / link.partition("#")[0]).resolve() for link in index.links}
    documents = {document.path for document in DOCUMENTS.values()}
    assert documents - linked <= {index.path, ROOT / "CHANGELOG.md"}


def test_every_threat_has_a_defence_that_a_test_shows():
    threats = rows(DOCUMENTS["docs/security.md"].path, "| Threat |")
    assert len(threats) > 20
    for threat, defence, shown in threats:
        assert defence, threat
        assert shown_by(shown), threat


def test_every_task_has_its_steps_and_a_test_that_takes_them():
    tasks = rows(DOCUMENTS["docs/how-to.md"].path, "| To |")
    assert len(tasks) > 10
    for task, steps, tried in tasks:
        assert "](" in steps, task
        assert shown_by(tried), task


def test_the_settings_are_those_of_the_code():
    assert settings_table() in DOCUMENTS["docs/operating.md"].text
