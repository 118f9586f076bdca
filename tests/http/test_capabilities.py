"""What the service says it can do is what it does."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

import hsm
from app.config import Config
from app.keys.capabilities import Capabilities
from app.service import service_of
from hsm import Offer
from scripts.algorithm_table import algorithm_table
from scripts.throwaway import ROOT
from tests.shared.api import Api, b64u

Members = dict[str, Any]


@pytest.fixture(scope="module")
def told(live: Api) -> Members:
    return live.get("/capabilities").body


def test_every_algorithm_of_the_tables_is_there(told):
    assert told["signatures"].keys() == hsm.SIGNATURES.keys()
    assert told["macs"].keys() == hsm.MACS.keys()
    assert told["key_managements"].keys() == {hsm.DIRECT, *hsm.KEY_MANAGEMENTS}
    assert told["content_encryptions"].keys() == hsm.CONTENT_ENCRYPTIONS.keys()
    for members in told["key_managements"].values():
        assert members["enc"].keys() == hsm.CONTENT_ENCRYPTIONS.keys()


def test_it_says_what_the_proof_has_shown(told, application):
    for name, offer in service_of(application).hsm.offers().items():
        members = (told["signatures"] | told["macs"]).get(name)
        if members is not None:
            for status in members["operations"].values():
                assert status.get("reason") == offer.reason
                assert status["offered"] is offer.is_offered


def _key_for(members: Members, alg: str) -> Members:
    return {**members["keys"][0], "alg": alg}


def test_what_is_offered_works_and_what_is_not_is_refused_with_its_reason(told, live):
    for alg, members in told["signatures"].items():
        answer = live.post("/keys", _key_for(members, alg))
        status = members["operations"]["sign"]
        assert (answer.status == 200) is status["offered"]
        if status["offered"]:
            body = {"kid": answer.body["kid"], "alg": alg, "data": b64u("data")}
            assert live.post("/sign", body).status == 200
        else:
            assert answer.refusal == (422, "unsupported_algorithm")
            assert status["reason"] in answer.body["description"]


def test_each_pair_of_alg_and_enc_works_if_it_is_offered(told, live):
    for alg, members in told["key_managements"].items():
        key = None if alg == hsm.DIRECT else live.post("/keys", _key_for(members, alg))
        for enc, pair in members["enc"].items():
            made = key or live.post("/keys", {"kty": "oct", "alg": enc})
            statuses = [status["offered"] for status in pair["operations"].values()]
            body = {"alg": alg, "enc": enc, "kid": (made.body or {}).get("kid", ""), "data": ""}
            answer = live.post("/encrypt", body)
            assert {answer.status == 200} == set(statuses), (alg, enc, answer)
            assert ("cek" in pair) is (answer.status == 200)
            if answer.status == 200:
                assert live.ok("/decrypt", answer.body)["data"] == ""


def test_sizes_are_those_that_keys_may_have(told, live):
    sizes = told["macs"]["HS256"]["bits"]
    assert sizes["generated"] == [256]
    for bits, status in (
        (sizes["imported"]["min"], 200),
        (sizes["imported"]["min"] - 8, 400),
        (sizes["imported"]["max"], 200),
        (sizes["imported"]["max"] + 8, 400),
    ):
        body = {"kty": "oct", "alg": "HS256", "k": b64u(bytes(bits // 8))}
        assert live.post("/keys", body).status == status


def test_limits_are_those_that_count(told, live):
    assert told["limits"]["body_bytes"] == 2 * 1024 * 1024
    requests = [{"op": "mac", "body": {}}] * (told["limits"]["batch_requests"] + 1)
    assert live.post("/batch", {"requests": requests}).status == 400
    assert live.post("/batch", {"requests": requests[1:]}).status == 200


def describe(config: Config, offers: Mapping[str, Offer]) -> Members:
    return Capabilities(config=config).describe(offers)


def test_where_a_cek_is_and_why_not_are_those_of_the_offer(application, config):
    offers = dict(service_of(application).hsm.offers())
    offers["RSA-OAEP"] = Offer(None, "process")
    offers["RSA-OAEP-256"] = Offer("switched off")
    offers["A192GCM"] = Offer("the token lacks it")
    encs = describe(replace(config, fips=True), offers)["key_managements"]
    pair = encs["RSA-OAEP"]["enc"]
    assert pair["A128GCM"]["cek"] == "process"
    refused = {"offered": False, "reason": "the token lacks it"}
    assert pair["A192GCM"] == {
        "operations": dict.fromkeys(("encrypt", "decrypt", "unwrap"), refused)
    }
    assert (
        encs["RSA-OAEP-256"]["enc"]["A128GCM"]["operations"]["unwrap"]["reason"] == "switched off"
    )
    assert encs["dir"]["enc"]["A256GCM"] == {
        "operations": {name: {"offered": True} for name in ("encrypt", "decrypt")},
        "cek": "token",
    }


def test_the_settings_are_in_it(application, config):
    offers = service_of(application).hsm.offers()
    told = describe(replace(config, fips=True, cek="token", jwks_keys=7), offers)
    assert (told["fips"], told["cek"], told["limits"]["published_keys"]) == (True, "token", 7)


def test_while_the_token_is_away_nothing_is_said(environment, serve):
    with serve({**environment, "JOSE_HSM_TOKEN_LABEL": "absent"}, workers=1) as url:
        answer = Api.over_http(url).get("/capabilities")
    assert answer.refusal == (503, "unavailable")
    assert "Retry-After" in answer.headers


@pytest.mark.softhsm
def test_the_table_of_the_readme_is_made_of_it(application, config):
    offers = service_of(application).hsm.offers()
    assert algorithm_table(describe(config, offers)) in (ROOT / "README.md").read_text("utf-8")


@pytest.mark.softhsm
def test_where_keys_are_kept_is_said_with_what_is_not_wrapped(told):
    reason = "the token answers KeyNotWrappable"
    refused = [
        {"kty": "OKP", "crv": crv, "reason": reason} for crv in ("Ed25519", "Ed448", "X25519")
    ]
    assert told["storage"] == {
        "default": "token",
        "wrapped_keys": {"offered": True, "refused": refused},
    }


def test_without_a_key_encryption_key_nothing_is_kept_wrapped(application, config):
    offers = service_of(application).hsm.offers()
    assert Capabilities(config=config).describe(offers)["storage"]["wrapped_keys"] == {
        "offered": False,
        "reason": "the token has no key-encryption key",
    }
