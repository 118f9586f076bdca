"""The documents as data: their commands, what these print, their links and anchors."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from scripts.throwaway import ROOT
from tests.shared.typed import searched
from tests.shared.waiting import COMMAND

NOT_RUN = "<!-- not run: "
"""Stands, with the reason, above commands that no test can run."""

_TEST = re.compile(r"`((?:tests|scripts)/[\w/]+\.py)(?:::(\w+))?`")
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_PRINTED = re.compile(r'# (\{.*\}|".*")')


class Block(NamedTuple):
    """A fenced block: its language, its text, and the line above it."""

    language: str
    code: str
    above: str


@dataclass(frozen=True)
class Document:
    """A Markdown file of the project."""

    path: Path

    @property
    def name(self) -> str:
        """Its path in the project."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text("utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        return _blocks(self.text)

    @property
    def prose(self) -> str:
        """All but the blocks."""
        return _FENCE.sub("", self.text)

    @property
    def session(self) -> str:
        """What to type, from the first command to the last; each on the line where it stands."""
        return _outside(
            self.text, [match for match in _FENCE.finditer(self.text) if match["language"] == "sh"]
        )

    @property
    def printed(self) -> list[re.Pattern[str]]:
        """What comments say that the commands print; … stands for anything."""
        return [
            re.compile(".*".join(map(re.escape, said.split("…"))))
            for said in _PRINTED.findall(self.session)
        ]

    @property
    def links(self) -> list[str]:
        """Where its links lead, but for those into the web."""
        return [link for link in _LINK.findall(self.prose) if "://" not in link]

    @cached_property
    def anchors(self) -> set[str]:
        """The names of its headings, as GitHub and GitLab make them."""
        return {
            re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            for heading in _HEADING.findall(self.prose)
        }

    @property
    def sections(self) -> dict[str, list[Block]]:
        """The blocks below each heading of the second level."""
        _, *parts = re.split(r"^## ", self.text, flags=re.MULTILINE)
        return {part.partition("\n")[0]: _blocks(part) for part in parts}


def typed(
    document: Document, url: str, settings: Mapping[str, str], directory: Path
) -> "subprocess.CompletedProcess[str]":
    """Type the commands of ``document`` in ``directory`` until one fails, for a service."""
    script = directory / document.path.name
    # The first line of a document is its title, so commands keep their line numbers.
    trap = f"""trap 'echo "{document.name}, line $LINENO" >&2' ERR"""
    script.write_text(trap + document.session.replace("http://127.0.0.1:8000", url), "utf-8")
    with searched() as path:
        return subprocess.run(
            ["bash", "-eEuo", "pipefail", script],
            check=False,
            env={**os.environ, **settings, "PATH": path},
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=COMMAND.seconds,
        )


def rows(path: Path, heading: str) -> list[list[str]]:
    """Return the cells of the table of ``path`` whose first line begins with ``heading``."""
    table = path.read_text("utf-8").partition(f"\n{heading}")[2].partition("\n\n")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]
    ]


def shown_by(cell: str) -> list[str]:
    """Return the tests and trials that ``cell`` names; fail if one of them is not there."""
    named = _TEST.findall(cell)
    for path, test in named:
        tree = ast.parse((ROOT / path).read_text("utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not test or test in functions, f"{path}::{test}"
    return [test or path for path, test in named]


def _blocks(text: str) -> list[Block]:
    return [
        Block(match["language"], match["code"], text[: match.start()].splitlines()[-1])
        for match in _FENCE.finditer(text)
    ]


def _outside(text: str, matches: list[re.Match[str]]) -> str:
    """Return the code of ``matches`` with empty lines instead of what is around it."""
    parts, end = [], 0
    for match in matches:
        parts += ["\n" * text.count("\n", end, match.start("code")), match["code"]]
        end = match.end("code")
    return "".join(parts)


def _paths() -> Iterator[Path]:
    yield from sorted(ROOT.glob("*.md"))
    yield from sorted((ROOT / "docs").rglob("*.md"))
    yield from sorted((ROOT / "examples").rglob("*.md"))


DOCUMENTS = {document.name: document for document in map(Document, _paths())}
