"""How one step of the doctor ended: the finding, in the words of the table of advice."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from app.operator.doctor.advice import ADVICE, COMMON
from app.operator.doctor.verdict import Result
from hsm import Finding


class Check(NamedTuple):
    """How one step ended; ``facts`` are those of its finding."""

    step: str
    result: Result
    symptom: str
    seen: str
    advice: str
    facts: Mapping[str, Any]


def check_of(step: str, finding: Finding, settings: Mapping[str, Any]) -> Check:
    """Put ``finding`` into words; ``step`` is a row of the table, and a name after a blank."""
    table = ADVICE[step.partition(" ")[0]]
    words = table.get(finding.symptom) or COMMON[finding.symptom]
    filling = {**settings, **finding.facts}
    seen, advice = (text.format_map(filling) for text in (words.seen, words.advice))
    return Check(step, words.result, finding.symptom, seen, advice, dict(finding.facts))
