"""Lines of logs are written faster than other JSON, and are the same bytes."""

from enum import StrEnum
from http import HTTPStatus

from hypothesis import given
from hypothesis import strategies as st

from app import compact_json
from app.rights import Principal


class Word(StrEnum):
    ACTIVE = "active"


texts = st.text() | st.sampled_from(["\x7f", "\ud800", "\\u0041", '"', "\u2028", "\x00\x1f"])
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 10**9).map(lambda microseconds: round(microseconds / 1000, 3))
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=6))
def test_a_line_is_what_other_json_is(members):
    assert compact_json.line(members) == compact_json.dumps(members)


def test_a_line_writes_each_character_as_other_json_does():
    for character in map(chr, range(0x180)):
        members = {character: f"a{character}b"}
        assert compact_json.line(members) == compact_json.dumps(members)


def test_a_line_takes_texts_and_numbers_with_names():
    members = {"principal": Principal("token:ci"), "state": Word.ACTIVE, "status": HTTPStatus.OK}
    assert compact_json.line(members) == compact_json.dumps(members)
    assert compact_json.line(members) == '{"principal":"token:ci","state":"active","status":200}'
