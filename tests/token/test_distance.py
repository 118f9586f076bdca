"""From a view to the token it is not far: what ``scripts.trials.trace_calls`` counts."""

import pytest

from scripts.trials import trace_calls

MOST_LINKS = {"sign": 12, "encrypt with dir": 15, "import": 15}
TOKEN_CALLS = (
    trace_calls.Link("hsm/cryptoki/session.py", "Session.call"),
    trace_calls.Link("hsm/cryptoki/repeated.py", "Repeated.__call__"),
)


@pytest.fixture(scope="module")
def chains(application):
    return {
        each.title: trace_calls.trace(application, each)
        for each in trace_calls.requests(application)
    }


@pytest.mark.parametrize("title", MOST_LINKS)
def test_few_functions_stand_between_a_view_and_the_token(title, chains):
    chain = chains[title]
    assert chain.links[0].path.startswith("app/http/views/")
    assert chain.links[-1] in TOKEN_CALLS
    assert chain.length <= MOST_LINKS[title], chain.links


def test_a_signature_takes_one_closure_at_most(chains):
    assert chains["sign"].closures <= 1
    assert trace_calls.Link("hsm/adapter.py", "Hsm.sign.<locals>.sign").is_closure
