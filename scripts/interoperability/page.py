"""The page of the table: a row for each library and form, and below it what is missing."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from scripts.interoperability.peers import PEERS
from scripts.interoperability.trial import Finding, Form, Way
from scripts.throwaway import ROOT

PAGE: Final = ROOT / "docs" / "interoperability.md"
_TEMPLATE: Final = Path(__file__).with_name("page.txt")
_NOTHING: Final = "none"


def page(found: Mapping[str, Sequence[Finding]]) -> str:
    """Return the page on what was found of each library."""
    table = [row for name, findings in found.items() for row in rows(name, findings)]
    missing = [row for name, findings in found.items() for row in missing_rows(name, findings)]
    text = _TEMPLATE.read_text("utf-8")
    return text.replace("@TABLE@\n", _joined(table)).replace("@MISSING@\n", _joined(missing))


def rows(name: str, findings: Sequence[Finding]) -> list[str]:
    """Return the rows of a library in the table: one for each form."""
    return [_row(name, form, findings) for form in Form]


def missing_rows(name: str, findings: Sequence[Finding]) -> list[str]:
    """Return its rows in the table of what did not go through."""
    return [f"| {name} | {what} | {where} |" for what, where in _missing(findings)]


def _joined(rows: Iterable[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def _row(name: str, form: Form, findings: Iterable[Finding]) -> str:
    cells = " | ".join(_cell(form, way, findings) for way in Way)
    return f"| {name} | {PEERS[name].version()} | {form} | {cells} |"


def _cell(form: Form, way: Way, findings: Iterable[Finding]) -> str:
    tried = [one for one in findings if (one.form, one.way) == (form, way)]
    well = sum(one.reason is None for one in tried)
    return f"{well} of {len(tried)}" if well else _NOTHING


def _missing(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """Give algorithms that failed where others went through, and where that was."""
    places: defaultdict[str, list[Finding]] = defaultdict(list)
    for one in findings:
        if one.reason and _cell(one.form, one.way, findings) != _NOTHING:
            places[one.case.name].append(one)
    names: defaultdict[str, list[str]] = defaultdict(list)
    for name, failed in places.items():
        names[_where(failed)].append(f"`{name}`")
    for where, algorithms in names.items():
        yield ", ".join(algorithms), where


def _where(failed: Sequence[Finding]) -> str:
    """Return which ways of one case failed, and in which forms if they were not all."""
    ways: defaultdict[str, list[Form]] = defaultdict(list)
    for one in failed:
        refused = ", the service refuses it" if one.is_refused else ""
        ways[f"{one.way}{refused}"].append(one.form)
    return "; ".join(
        way if forms == failed[0].case.forms else f"{way} ({', '.join(forms)})"
        for way, forms in ways.items()
    )
