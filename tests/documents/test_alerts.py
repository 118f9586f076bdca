"""Alerts and dashboard: valid, on figures that there are, and seen from the first event on."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import yaml

from app.http.router import ANSWERS, PARTS
from app.observability.metrics import Metrics
from app.observability.stock import Stock
from app.registry import Registry, Watch
from scripts.throwaway import ROOT
from tests.shared.documents import rows

RULES = ROOT / "deploy" / "prometheus" / "rules.yml"
ALERTS = {rule["alert"]: rule for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]}

DASHBOARD = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text())
SHOWN = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
PLACE = 'job=~"$job", instance=~"$instance"'

checked = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


class Course(NamedTuple):
    """What a figure does from minute to minute; in the sixth comes what the alert is for."""

    series: str
    values: str


ONE_EVENT, MANY_EVENTS = "0x5 1x9", "0x5 600+600x9"
COURSES = {
    "ServiceAway": [Course("token_up", "1x5 stale")],
    "TokenAway": [Course("token_up", "1x5 0x9"), Course('token_up{pid="1"}', "0x14")],
    "WorkerWithoutToken": [Course("token_up", "1x5 0x9"), Course('token_up{pid="1"}', "1x14")],
    "TokenFlaps": [Course('token_losses_total{cause="lost"}', "0x5 4x9")],
    "Unavailable": [Course('batch_requests_total{endpoint="x",status="503"}', ONE_EVENT)],
    "InternalError": [Course('batch_requests_total{endpoint="x",status="500"}', ONE_EVENT)],
    "SessionsShort": [
        Course('session_wait_seconds_bucket{le="0.25"}', "0x14"),
        *(Course(f'session_wait_seconds_bucket{{le="{le}"}}', ONE_EVENT) for le in ("1", "+Inf")),
    ],
    "TokenSlow": [
        Course('pkcs11_call_seconds_bucket{function="C_Sign",le="1"}', "0x14"),
        *(
            Course(f'pkcs11_call_seconds_bucket{{function="C_Sign",le="{le}"}}', ONE_EVENT)
            for le in ("2.5", "+Inf")
        ),
    ],
    "FailedAuthentication": [Course('requests_total{endpoint="x",status="429"}', MANY_EVENTS)],
    "FailedDecryptions": [
        Course('batch_requests_total{endpoint="encryption.decrypt",status="422"}', MANY_EVENTS)
    ],
    "BrokenSeal": [Course("broken_seals_total", ONE_EVENT)],
    "PinRefused": [Course("pin_refused", "0x5 1x9")],
    "Expires": [Course('days_until_expiry{of="key"}', "7x5 6.9x9")],
    "BudgetSpent": [Course("encryption_budget_used_ratio", "0.5x5 0.6x9")],
    "AuditLogFails": [Course('audit_lines_total{outcome="failed"}', ONE_EVENT)],
    "LogLinesLost": [Course("log_lines_dropped_total", ONE_EVENT)],
}


def scraped(series: str) -> str:
    """Return a series as Prometheus has it, with the labels of its place."""
    name, _, labels = f"jose_hsm_{series}".partition("{")
    return f'{name}{{job="jose-hsm",instance="a",{labels.removesuffix("}")}}}'


def quiet_counters(but: Iterable[str]) -> Iterator[Course]:
    """Give all counters as they are while nothing happens; each may come into a rule."""
    for family in Metrics(ANSWERS, PARTS)._registry.collect():
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            series = sample.name.removeprefix("jose_hsm_") + (labels and f"{{{labels}}}")
            if sample.name.endswith("_total") and series not in but:
                yield Course(series, "0x14")


def unit_test(alert: str) -> dict[str, Any]:
    """Return the test of an alert: silent before the event, and after it what the rule says."""
    rule = ALERTS[alert]
    courses = [*COURSES[alert], *quiet_counters({course.series for course in COURSES[alert]})]
    place = {} if alert == "ServiceAway" else {"job": "jose-hsm", "instance": "a"}
    raised = {"exp_labels": rule["labels"] | place, "exp_annotations": rule["annotations"]}
    at = {"alertname": alert}
    return {
        "interval": "1m",
        "input_series": [
            {"series": scraped(course.series), "values": course.values} for course in courses
        ],
        "alert_rule_test": [
            at | {"eval_time": "5m", "exp_alerts": []},
            at | {"eval_time": "12m" if "for" in rule else "7m", "exp_alerts": [raised]},
        ],
    }


def promtool(*arguments: object) -> None:
    done = subprocess.run(
        ["promtool", *map(str, arguments)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@checked
def test_the_rules_are_valid() -> None:
    promtool("check", "rules", RULES)


@checked
def test_each_alert_is_silent_until_the_first_event_and_not_afterwards(tmp_path: Path) -> None:
    assert COURSES.keys() == ALERTS.keys()
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [*map(unit_test, COURSES)]}))
    promtool("test", "rules", path)


@checked
def test_what_the_dashboard_shows_is_valid(tmp_path: Path) -> None:
    rules = [
        {"record": f"shown:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, expression in enumerate(SHOWN)
    ]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


def test_the_dashboard_shows_chosen_services_and_every_figure() -> None:
    assert all(expression.count("jose_hsm_") == expression.count(PLACE) for expression in SHOWN)
    shown = {re.sub("_(bucket|count|total)$", "", name) for name, _ in selectors(SHOWN)}
    there_are = chain(Metrics(ANSWERS, PARTS)._registry.collect(), stock().collect())
    assert shown == {family.name for family in there_are}


def selectors(expressions: Iterable[str]) -> set[tuple[str, str]]:
    """Return each metric that is named, with what is wanted of its labels."""
    found = set()
    for expression in expressions:
        text = " ".join(expression.replace(PLACE, "").split())
        found |= set(re.findall(r"(jose_hsm_\w+)(?:\{([^}]*)\})?", text))
    return found


def matches(labels: dict[str, str], wanted: str) -> bool:
    return all(
        re.fullmatch(pattern, labels.get(name, ""))
        for name, pattern in re.findall(r'(\w+)=~?"([^"]*)"', wanted)
    )


def stock() -> Stock:
    """Return that of a registry that does not answer yet."""
    return Stock(cast(Registry, None), Watch(lambda: None))


def figures(name: str, wanted: str) -> list[float]:
    """Return the values at the start, of those with any label of what is not listed before."""
    metrics = Metrics(ANSWERS, PARTS)
    metrics._calls.bear([("C_Sign",)])
    metrics._errors.bear([("C_Sign", "DeviceError")])
    metrics._request_seconds.bear([("signing.sign",)])
    metrics._sessions.bear([("idle",)])
    others = stock()
    others._keys = {("EC", "active"): 1}
    return [
        sample.value
        for family in chain(metrics._registry.collect(), others.collect())
        for sample in family.samples
        if sample.name == name and matches(sample.labels, wanted)
    ]


RULED = selectors(rule["expr"] for rule in ALERTS.values())


@pytest.mark.parametrize(("name", "wanted"), sorted(RULED))
def test_a_rule_names_a_figure_that_is_there_from_the_start(name: str, wanted: str) -> None:
    """None has come, or what is waited for is never."""
    assert {0, math.inf} & set(figures(name, wanted))


@pytest.mark.parametrize(("name", "wanted"), sorted(selectors(SHOWN)))
def test_the_dashboard_shows_figures_that_there_are(name: str, wanted: str) -> None:
    assert figures(name, wanted)


def test_the_page_lists_the_alerts_and_why_there_is_each() -> None:
    listed = rows(ROOT / "docs" / "operating.md", "| Alert |")
    assert [(alert.strip("`"), why) for alert, why in listed] == [
        (alert, rule["annotations"]["summary"]) for alert, rule in ALERTS.items()
    ]
