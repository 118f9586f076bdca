"""Schemathesis finds no answer that the document does not have: a short form, and a long one."""

import pytest

from scripts.throwaway import make_token
from scripts.trials.fuzz import EVERYTHING, LINKED, run
from tests.shared.command import with_kek
from tests.shared.forks import server

SHORT = {"owner": (("fuzzing",), LINKED)}
"""Without the examples, which ``tests/http/test_conformance.py`` asks and holds to the document.

Nor with the edges of every schema, 3,000 requests that take ten times as long as all of this.
"""


@pytest.mark.parametrize(
    ("plan", "examples", "least"),
    [
        pytest.param(SHORT, 2, 150, id="short"),
        pytest.param(EVERYTHING, 15, 15_000, id="long", marks=pytest.mark.long),
    ],
)
def test_no_answer_is_undocumented(plan, examples, least, tmp_path):
    settings = with_kek(make_token(tmp_path / "state"))
    counts = run(settings, plan, examples=examples, seed=1, serve=server)
    for role in plan:
        print(role, sum(count.cases for count in counts if count.role == role), "cases")
    assert {count.role for count in counts} == plan.keys()
    assert not any(count.failures for count in counts), [
        count.says for count in counts if count.failures
    ]
    assert sum(count.cases for count in counts) > least
