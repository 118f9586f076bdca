"""The service on tokens of other makes: what each offers, that it is right, and that it stays."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http import HTTPStatus
from itertools import repeat
from typing import Any, Final

import pytest
from pkcs11 import Attribute, KeyType, ObjectClass, PKCS11Error

import hsm
from hsm import OtherName
from hsm.cryptoki.attributes import OPTIONAL
from hsm.examination.examination import Examination
from hsm.importing.proof import SAMPLES, specs
from hsm.life.work import Errand
from scripts.throwaway import connected_workers, make_token
from scripts.tokens import (
    ANY_SIZE,
    COUNTED,
    IMPORTS,
    NOT_DECRYPTING,
    OAEP_BY_ITSELF,
    SENSITIVE,
    SEVERAL,
    TOKENS,
    TOLD,
    UNCHANGED,
    UNUSED,
    WRAPPED_IMPORTS,
    digests_signed_by,
    imported_wrapped,
)
from scripts.trials import uses
from scripts.workers import workers_of
from tests.faults.service import use
from tests.shared.api import Api, b64u
from tests.shared.bodies import ML_DSA, body_of, crvs_of
from tests.shared.drivers import result_of
from tests.shared.forks import MAKE, server
from tests.shared.refs import new_ref
from tests.shared.tokens import require
from tests.shared.waiting import until
from tests.shared.workers import kill_a_worker
from tests.token.test_connection import _settings, _started
from tests.token.test_examination import opened

OWN = os.environ.get(MAKE, "softhsm")
QUICK = "nss" if OWN == "softhsm" else OWN
OTHERS = [
    pytest.param(name, marks=() if name == QUICK else pytest.mark.long)
    for name, token in TOKENS.items()
    if name != "softhsm" and (name == OWN or not token.has_daemons)
]
"""Of the other makes one is tried in each run of the suite, and all where promises are held.

Those that have daemons are tried where they are asked for.
"""
OPT_IN = {name for name, row in hsm.ALGORITHMS.items() if row.is_opt_in}
SEEN_IN_USE = {
    *("CKA_LOCAL", "CKA_ALWAYS_SENSITIVE", "CKA_NEVER_EXTRACTABLE", "CKA_DERIVE"),
    *(ANY_SIZE, COUNTED, TOLD, SEVERAL, IMPORTS, NOT_DECRYPTING, UNCHANGED, SENSITIVE, UNUSED),
    *map(digests_signed_by, ("RS256", "RS384", "RS512")),
}
"""What tests with ``--token`` see of keys and messages."""
ENCS = ("A256GCM", "A128CBC-HS256")
FEWEST = 8
"""Of algorithms that a token offers on which the service is of use."""
CALLERS: Final = 8
PASSING: Final = {"opencryptoki": 100}
"""How many keys of each come and go where that has been seen to harm others; elsewhere a few."""
DATA = b64u("what is protected")
SECRETS = (ObjectClass.SECRET_KEY, ObjectClass.PRIVATE_KEY)
MATERIAL = (Attribute.VALUE, Attribute.PRIVATE_EXPONENT, Attribute.PRIME_1)


def _parameters() -> str | None:
    return os.environ.get("JOSE_HSM_PKCS11_PARAMETERS")


def lacking() -> list[str]:
    """Return algorithms and curves that the token does not offer, and attributes it does not take.

    Also what of them does not come in wrapped, and whether it does not do by itself what of OAEP
    it offers.
    """
    token = _started(parameters=_parameters())
    offers, opened = token.offers(), token._connection.token
    templates, imports = opened.templates, opened.imports.find()
    names = {name for name, offer in offers.items() if not offer.is_offered}
    taken = templates.of_secrets & templates.of_pairs
    names |= {f"CKA_{attribute.name}" for attribute in {*OPTIONAL} - taken}
    if offers["RSA-OAEP-256"].residency == "process":
        names.add(OAEP_BY_ITSELF)
    refused = (target for target in specs(opened) if target not in imports.ways)
    if imports.alg is None:
        names.add(WRAPPED_IMPORTS)
    else:
        names |= {imported_wrapped(crv or kind) for kind, crv in refused}
    return sorted(names.union(*(offer.refused_crvs for offer in offers.values())))


def violations() -> list[str]:
    """Return how many private and secret objects our keys have, and what is wrong with them."""
    token = _started(parameters=_parameters())

    def look(_token: Any, session: Any) -> list[str]:
        found = [made for kind in SECRETS for made in session.find({Attribute.CLASS: kind})]
        ours = [made for made in found if made[Attribute.LABEL].startswith("jose-hsm:")]
        return [f"{len(ours)} objects", *(wrong for made in ours for wrong in _wrong(made))]

    return token._connection.perform(Errand(verb=look))


def _wrong(made: Any) -> list[str]:
    facts = {
        "not private": not made[Attribute.PRIVATE],
        "not sensitive": not made[Attribute.SENSITIVE],
        "extractable": made[Attribute.EXTRACTABLE],
        "wraps and decrypts": _is(made, Attribute.WRAP) and _is(made, Attribute.DECRYPT),
        "readable": any(_is(made, attribute) is not None for attribute in MATERIAL),
    }
    return [name for name, is_wrong in facts.items() if is_wrong]


def _is(made: Any, attribute: Attribute) -> Any:
    try:
        return made[attribute]
    except PKCS11Error:
        return None


class Kept:
    """A key of each algorithm, and what was made by each."""

    def __init__(self, api: Api, lacks: frozenset[str]) -> None:
        offered = hsm.ALGORITHMS.keys() - lacks - OPT_IN
        self.keys = [
            api.create(**body_of(name, crv))
            for name in sorted(offered)
            for crv in (crvs_of(name) or (None,))
            if crv not in lacks
        ]
        self.made = [(key, message) for key in self.keys for message in self._protect(api, key)]

    def _protect(self, api: Api, key: Mapping[str, Any]) -> list[Any]:
        use = uses.protect(key, DATA)
        transports = key["alg"] in hsm.KEY_MANAGEMENTS
        bodies = [{**use.body, "enc": enc} for enc in ENCS] if transports else [use.body]
        return [api.ok(use.path, body) for body in bodies]

    def assert_right(self, api: Api) -> None:
        """All that was made is opened or verified, and all is made again."""
        for key, message in self.made:
            path, body, right = uses.check(key, DATA, message)
            assert api.ok(path, body) == right, key
            assert self._protect(api, key)


@pytest.fixture(scope="module", params=OTHERS)
def own(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The name of a make of token, and the settings of one."""
    name = request.param
    require(name)
    return name, make_token(tmp_path_factory.mktemp(name) / "state", name)


def latch() -> str:
    """Return what the doctor sees of the PIN, which is not tried."""
    examination = Examination(_settings(parameters=_parameters()))
    looks = [examination.module(), examination.token(), examination.latch()]
    examination.close()
    return looks[-1].symptom


def log_in() -> str:
    """Return how the token takes the PIN."""
    examination = Examination(_settings(parameters=_parameters()))
    looks = [examination.module(), examination.token(), examination.login()]
    examination.close()
    return looks[-1].symptom


def test_it_offers_all_but_what_it_is_known_to_lack(own):
    name, environment = own
    known = (TOKENS[name].lacks | OPT_IN) - SEEN_IN_USE
    assert result_of(environment, lacking) == sorted(known)


def examined() -> dict[str, str]:
    """Return what the doctor says of each algorithm that has published examples."""
    examination = opened(parameters=_parameters())
    names = hsm.ALGORITHMS.keys() - {*ML_DSA}
    found = {name: examination.algorithm(name).symptom for name in names}
    examination.close()
    return found


def test_what_it_offers_agrees_with_the_examples_of_the_rfcs(own):
    name, environment = own
    found = result_of(environment, examined)
    offered = found.keys() - TOKENS[name].lacks - OPT_IN
    right = {"", "in_process", "some_curves"} | (
        {"not_imported"} if IMPORTS in TOKENS[name].lacks else set()
    )
    assert {found[alg] for alg in offered} <= right


def wrapped_in() -> list[str]:
    """Return what comes in wrapped, of that which is offered, and works then."""
    token = _started(parameters=_parameters())
    imports = token._connection.token.imports.find()
    if imports.alg is None:
        return []
    wrapping = new_ref(imports.wrapping_spec(2048))
    public: Any = token.generate(wrapping).public
    row = hsm.KEY_MANAGEMENTS[str(wrapping.spec.alg)]
    found = []
    for (kind, crv), spec in specs(token._connection.token).items():
        if (kind, crv) in imports.ways:
            key = SAMPLES[kind](spec)
            half = key.public_key() if spec.kind.is_pair else None
            new = new_ref(replace(spec, bits=None if half else 8 * len(key)))
            token.imports.take(wrapping, new, hsm.wrap_key(public, row, key), half)
            assert token.works(new)
            token.destroy(new)
            found.append(crv or kind)
    token.destroy(wrapping)
    return found


def test_keys_come_in_wrapped_of_the_kinds_that_it_unwraps(own):
    name, environment = own
    found = set(result_of(environment, wrapped_in))
    assert (found >= {"AES", "HMAC"}) is (WRAPPED_IMPORTS not in TOKENS[name].lacks)
    assert not set(map(imported_wrapped, found)) & TOKENS[name].lacks


def adopted() -> bool:
    """Return whether a key works that has come without a CKA_ID, and has got one of ours."""
    token = _started(parameters=_parameters())
    template = {
        Attribute.CLASS: ObjectClass.SECRET_KEY,
        Attribute.KEY_TYPE: KeyType.GENERIC_SECRET,
        Attribute.VALUE: bytes(range(32)),
        Attribute.LABEL: "theirs",
        Attribute.TOKEN: True,
        Attribute.PRIVATE: True,
        Attribute.SIGN: True,
    }
    make = Errand(verb=lambda _token, session: bool(session.create_object(template)))
    assert token._connection.perform(make)
    name = OtherName(label="theirs")
    ref = new_ref(token.adoptable(name).specs["HS256"])
    token.rename(ref, name, lambda: None)
    works = token.works(ref)
    token.destroy(ref)
    return works


def test_a_key_without_an_id_is_adopted(own):
    name, environment = own
    if IMPORTS not in TOKENS[name].lacks:
        assert result_of(environment, adopted)


def _come_and_go(url: str, alg: str, number: int) -> set[int]:
    """Make, use and destroy some keys; return what was answered, 503 if the token is busy."""
    api, statuses = Api.over_http(url), set()
    for _ in range(number):
        answer = api.post("/keys", body_of(alg))
        statuses.add(answer.status)
        if answer.status == HTTPStatus.OK:
            statuses |= {use(api, answer.body), api.delete(answer.body["kid"]).status}
    return statuses


def test_every_key_works_through_restart_and_kill_and_is_gone_when_destroyed(own):
    """Others that are made and destroyed meanwhile touch none: openCryptoki 3.8 confuses them."""
    name, environment = own
    workers = TOKENS[name].workers
    with server(environment, workers=workers) as running:
        kept = Kept(Api.over_http(running.url), TOKENS[name].lacks)
        alg = next(alg for alg in ("HS256", "ES256") if alg not in TOKENS[name].lacks)
        with ThreadPoolExecutor(CALLERS) as callers:
            arguments = running.url, alg, PASSING.get(name, 6)
            answers = callers.map(_come_and_go, *(repeat(each, CALLERS) for each in arguments))
            expected = {HTTPStatus.OK, HTTPStatus.NO_CONTENT, HTTPStatus.SERVICE_UNAVAILABLE}
            assert set().union(*answers) <= expected
    assert len(kept.made) >= FEWEST
    with server(environment, workers=workers) as running:
        api = Api.over_http(running.url)
        kept.assert_right(api)
        until(lambda: len(workers_of(running.process.pid)) == workers)
        before = set(workers_of(running.process.pid))
        kill_a_worker(running.process.pid)
        until(lambda: not before.issuperset(workers_of(running.process.pid)))
        # Its successor may wait before it begins, and says so to whoever comes.
        until(lambda: connected_workers(running.url) == workers)
        kept.assert_right(Api.over_http(running.url))
        objects, *wrong = result_of(environment, violations)
        assert int(objects.split()[0]) >= len(kept.keys)
        assert wrong == []
        for key in kept.keys:
            assert api.delete(key["kid"]).status == 204
            assert api.get(f"/keys/{key['kid']}").status == 404
        # The janitor finishes a DELETE that was 503. The canary stays, and the key of backups.
        until(lambda: int(result_of(environment, violations)[0].split()[0]) <= 2)


def test_a_pin_that_one_token_refuses_is_tried_on_another_of_the_same_state_directory(
    own, tmp_path
):
    name, environment = own
    pin_file = tmp_path / "wrong"
    pin_file.write_text("not-the-pin")
    other = make_token(tmp_path / "state", name)
    state_dir = {"JOSE_HSM_STATE_DIR": str(tmp_path), "JOSE_HSM_PIN_FILE": str(pin_file)}
    assert result_of(environment | state_dir, log_in) == "refused"
    assert result_of(environment | state_dir, latch) == "closed"
    assert result_of(other | state_dir, latch) == ""
