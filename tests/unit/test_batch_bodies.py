"""A body of a batch is read as it would be alone, whatever the batch has read before it."""

from typing import Any

import pytest

from app import current_request
from app.current_request import RequestRecord
from app.http.batches import Bodies
from app.http.operations import OPERATIONS
from app.schemas.schema import RequestSchema
from tests.shared.api import b64u

Body = dict[str, Any]

KID, ANOTHER = "0f6d8c9e-53a7-4b0e-9d5c-2f1a7b3c4d5e", "1f6d8c9e-53a7-4b0e-9d5c-2f1a7b3c4d5e"
DATA = b64u("data")
GOOD: dict[str, Body] = {
    "encrypt": {"kid": KID, "alg": "dir", "enc": "A256GCM", "aad": DATA, "data": DATA},
    "sign": {"kid": KID, "alg": "ES256", "serialization": "compact", "typ": "JWT", "data": DATA},
    "mac": {"kid": KID, "alg": "HS256", "data": DATA},
    "verify": {"protected": b64u('{"alg":"HS256","kid":"k"}'), "signature": DATA, "data": DATA},
    "decrypt": {
        "protected": b64u('{"alg":"dir","enc":"A256GCM","kid":"k"}'),
        "iv": b64u("x" * 12),
        "ciphertext": DATA,
        "tag": b64u("x" * 16),
    },
}
OTHER_DATA = (b64u("other"), "", "a", "a=", "ä", None, True, 1, [DATA], {"data": DATA})
OTHER_MEMBERS: tuple[Body, ...] = (
    *({"kid": kid} for kid in (ANOTHER, "alias", None, 1)),
    *({"alg": alg} for alg in ("HS512", "none", "A256GCM", None, True)),
    *({"enc": "A128CBC-HS256"}, {"enc": 1}, {"aad": None}, {"aad": "a="}, {"mac": DATA}),
    *({"serialization": form} for form in ("flattened", "compact", "general", None, 1)),
    *({"header": header} for header in ({"x": 1}, {"x": True}, {"x": 1.0}, "text", None)),
    *({"typ": 1}, {"cty": "text/plain"}, {"keyset": "set"}, {"jwk": {}}, {"prehashed": True}),
    *({"protected": DATA}, {"signature": ""}, {"jws": DATA}, {"recipients": []}, {"unknown": "x"}),
)


def read(bodies: Bodies, op: str, members: Body) -> tuple[Any, ...]:
    """Return all that is found in a body, or the error and its text."""
    record = RequestRecord()
    current_request.switch(record)
    try:
        checked = bodies.check(OPERATIONS[op], members, record)
        found: tuple[Any, ...] = (checked.body, checked.alike, checked.kids, checked.names)
    except Exception as error:  # noqa: BLE001  # whichever it is
        found = (type(error), str(error))
    finally:
        current_request.end()
    return (repr(found), record.kid, record.alg, record.enc)


@pytest.mark.parametrize("op", GOOD)
def test_each_body_is_read_after_a_good_one_as_it_is_alone(op):
    good = GOOD[op]
    without_data = {name: value for name, value in good.items() if name != "data"}
    variants = [
        *(good | {"data": data} for data in OTHER_DATA),
        *(good | members | {"data": b64u("more")} for members in OTHER_MEMBERS),
        *({name: good[name] for name in good if name != missing} for missing in good),
        without_data,
        dict(reversed(good.items())),
    ]
    bodies = Bodies({})
    first = read(bodies, op, good)
    for members in variants:
        assert read(bodies, op, members) == read(Bodies({}), op, members), members
    assert read(bodies, op, good) == first


@pytest.mark.parametrize("op", ["encrypt", "sign", "mac"])
def test_of_bodies_that_differ_in_their_data_one_is_read_whole(op, monkeypatch):
    whole: list[Body] = []
    load = RequestSchema.load

    def count(schema: RequestSchema, members: Body) -> Any:
        whole.append(members)
        return load(schema, members)

    monkeypatch.setattr(RequestSchema, "load", count)
    bodies = Bodies({})
    found = [read(bodies, op, GOOD[op] | {"data": b64u(f"data {one}")}) for one in range(5)]
    assert len(whole) == 1
    assert len(set(found)) == 5
    another = read(bodies, op, GOOD[op] | {"kid": ANOTHER})
    assert len(whole) == 1
    assert another == read(Bodies({}), op, GOOD[op] | {"kid": ANOTHER})


def test_what_is_done_with_a_body_touches_no_other():
    bodies = Bodies({})
    record = RequestRecord()
    first, second = (bodies.check(OPERATIONS["sign"], GOOD["sign"], record) for _ in range(2))
    first.body.clear()
    second.body.pop("serialization")
    assert bodies.check(OPERATIONS["sign"], GOOD["sign"], record).body["serialization"] == "compact"
