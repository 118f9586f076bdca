"""The site has every document once, in one of four parts, and no link that leads nowhere."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts.throwaway import ROOT
from tests.shared.documents import DOCUMENTS

SETTINGS: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text("utf-8"), yaml.BaseLoader)


def pages(part: Any) -> Iterator[str]:
    """Give the documents of a part of the navigation."""
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from pages(inner)


def test_the_parts_are_those_of_a_reader_who_learns_does_looks_up_or_wonders():
    parts = [name for entry in SETTINGS["nav"] for name in entry]
    assert parts == ["Start", "Tutorial", "How-to", "Reference", "Explanation"]


def test_every_document_is_in_one_part():
    assert sorted(pages(SETTINGS["nav"])) == sorted(DOCUMENTS)


def test_nothing_is_loaded_from_elsewhere():
    assert SETTINGS["theme"]["font"] == "false"
    assert not {"extra_css", "extra_javascript"} & SETTINGS.keys()


def make_site(checkout: Path, site: Path) -> "subprocess.CompletedProcess[str]":
    command = ["make", "site", f"SITE={site}"]
    return subprocess.run(command, cwd=checkout, check=False, capture_output=True, text=True)


@pytest.mark.long
def test_each_document_has_its_page(clone, tmp_path):
    done = make_site(clone, tmp_path)
    assert done.returncode == 0, done
    for name in DOCUMENTS:
        page = name.replace("README.md", "index.md").replace(".md", ".html")
        assert (tmp_path / page).is_file(), name


@pytest.mark.long
@pytest.mark.parametrize("link", ["operating.md#nothing", "nothing.md"])
def test_a_link_that_leads_nowhere_ends_it(link, clone, tmp_path):
    document = clone / "docs" / "which-call.md"
    written = document.read_text("utf-8")
    try:
        document.write_text(f"{written}\n[nothing]({link})\n")
        done = make_site(clone, tmp_path)
    finally:
        document.write_text(written)
    assert done.returncode
    assert link in done.stderr
