"""Write what docs has of the interfaces: the OpenAPI documents, and pages made of what there is.

python -m scripts.openapi
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scripts.man_page import man_page
from scripts.openapi.document import document
from scripts.openapi.pages import api_page, errors_page
from scripts.openapi.plain import plain
from scripts.throwaway import ROOT


def files() -> Mapping[Path, str]:
    """Return the text of each file."""
    whole = document()
    docs = ROOT / "docs"
    return {
        docs / "openapi.json": _json(plain(whole)),
        docs / "openapi-strict.json": _json(whole),
        docs / "api.md": api_page(whole),
        docs / "errors.md": errors_page(),
        docs / "jose-hsm.1": man_page(),
    }


def _json(document: Mapping[str, Any]) -> str:
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n"


def main() -> None:
    """Write them."""
    for path, text in files().items():
        path.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
