"""A request belongs to the trace that ``traceparent`` names (W3C Trace Context), if that is one."""

import pytest

from app import current_request
from app.auth import caller, principal
from app.rights import Principal

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
REST = f"{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.mark.parametrize("traceparent", [f"00-{REST}", f"01-{REST}", f"fe-{REST}-what.comes-later"])
def test_the_trace_is_known(traceparent):
    record = current_request.begin("mine", traceparent)
    try:
        expected = {"request_id": "mine", "trace_id": TRACE_ID}
        assert record.ids() == record.part().ids() == expected
    finally:
        current_request.end()


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "secret",
        f"ff-{REST}",
        f"00-{REST}-more",
        f"00-{REST}\n",
        f"00-{REST},00-{REST}",
        f"01-{REST}more",
        f"00-{REST.upper()}",
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
    ],
)
def test_what_is_none_is_ignored(traceparent):
    record = current_request.begin("mine", traceparent)
    try:
        assert record.ids() == {"request_id": "mine"}
    finally:
        current_request.end()


def test_whoever_calls_is_known_from_then_on_in_each_part_too():
    whole = current_request.begin()
    try:
        assert caller() is None
        current_request.authenticated_as(Principal("token:a"))
        current_request.switch(whole.part())
        assert principal() == "token:a"
    finally:
        current_request.end()


def test_nobody_is_taken_for_somebody():
    for act in (current_request.end, current_request.begin):
        act()
        with pytest.raises(LookupError):
            principal()
    current_request.end()
