"""Clients that send a byte a second."""

import socket
import time
from contextlib import ExitStack, closing, suppress
from typing import Final
from urllib.parse import urlsplit

NUMBER: Final = 64  # more than there are threads to answer, in two workers
_PAUSE_SECONDS: Final = 1.0
_HEAD: Final = (
    b"POST /v1/crypto/mac HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)
_WITH_BODY: Final = _HEAD + b"Content-Length: 1000\r\n\r\n{"
_WITHOUT_END: Final = _HEAD + b"X-Slow: "


def crawl(url: str, seconds: float) -> None:
    """Send header sections and bodies so for ``seconds``, half of each; end none of them."""
    address = urlsplit(url)
    end = time.monotonic() + seconds
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                closing(socket.create_connection((address.hostname, address.port), timeout=seconds))
            )
            for _ in range(NUMBER)
        ]
        for number, client in enumerate(clients):
            client.sendall(_WITH_BODY if number % 2 else _WITHOUT_END)
        while time.monotonic() < end:
            time.sleep(_PAUSE_SECONDS)
            for client in clients:
                with suppress(OSError):  # it was slow for too long, or its worker has ended
                    client.sendall(b" ")
