"""The files of docs that are made of the code, and what has to be in them."""

import json
from collections.abc import Mapping
from pathlib import Path

from scripts.openapi.document import document
from scripts.openapi.pages import api_page, errors_page
from scripts.throwaway import ROOT


def files() -> Mapping[Path, str]:
    """Return the text of each."""
    whole = document()
    text = json.dumps(whole, indent=2, ensure_ascii=False)
    docs = ROOT / "docs"
    return {
        docs / "openapi.json": f"{text}\n",
        docs / "api.md": api_page(whole),
        docs / "errors.md": errors_page(),
    }
