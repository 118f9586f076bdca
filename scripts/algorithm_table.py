"""Print the rows of the README's table of algorithms, for a new token of this machine.

python -m scripts.algorithm_table
"""

from collections.abc import Mapping
from typing import Any, Final

import requests

from app.keys.capabilities import AlgorithmRow, algorithm_rows
from scripts.throwaway import service

_PLACES: Final[Mapping[str, str]] = {"token": "token", "process": "key: token, CEK: **process**"}


def algorithm_table(capabilities: dict[str, Any]) -> str:
    """Return the rows of the README table: algorithms, their keys, offered or not, and where."""
    return "\n".join(
        f"| {' '.join(f'`{name}`' for name in row.names)}{_with(row)} | {row.keys} "
        f"| {row.offered} | {_PLACES[row.place]} |"
        for row in algorithm_rows(capabilities)
    )


def _with(row: AlgorithmRow) -> str:
    if row.takes_every_enc:
        return " with every `enc`"
    return f" with {' '.join(f'`{enc}`' for enc in row.encs)}" if row.encs else ""


def main() -> None:
    """Print them."""
    with service(workers=1) as running:
        answer = requests.get(f"{running.url}/v1/crypto/capabilities", timeout=60)
        answer.raise_for_status()
        print(algorithm_table(answer.json()))


if __name__ == "__main__":
    main()
