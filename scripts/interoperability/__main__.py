"""Write docs/interoperability.md from a run with all libraries."""

import time
from typing import Any, Final

import requests

from scripts.interoperability.page import PAGE, page
from scripts.interoperability.peers import PEERS
from scripts.interoperability.trial import Keys, Post, trial
from scripts.throwaway import service

_SECONDS: Final = 60


def _posts_to(url: str) -> Post:
    session = requests.Session()

    def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = session.post(f"{url}/v1/crypto{path}", json=body, timeout=_SECONDS)
        return dict(answer.json())

    return post


def main() -> None:
    """Run each library against a service of its own."""
    with service(workers=1) as running:
        while requests.get(f"{running.url}/health/ready", timeout=_SECONDS).status_code != 200:  # noqa: PLR2004  # OK
            time.sleep(0.1)
        post = _posts_to(running.url)
        keys = Keys(post)
        PAGE.write_text(page({name: trial(peer, post, keys) for name, peer in PEERS.items()}))


if __name__ == "__main__":
    main()
