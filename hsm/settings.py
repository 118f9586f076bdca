"""What ``hsm`` needs to know of where it runs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hsm.observer import Observer


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What ``hsm`` needs to know. ``read_pin`` is called for each login; the PIN is not kept.

    The library ``module`` gets ``parameters`` when it is initialised, if it wants any.

    ``state_dir`` holds the boot lock and the PIN latch; all processes of a host share it. Those of
    one service have a ``shared_dir`` too, which ends with it; the first of them tries what the
    token can do. An
    operation that takes longer than ``call_seconds``, or one that generates an RSA pair or opens
    the token than ``generation_seconds``, ends the process. No plaintext is longer than
    ``plaintext_bytes``. ``opted_in`` names those opt-in
    algorithms that are offered. Of the keys that are kept wrapped at most ``unwrapped_keys`` are
    session objects at a time.
    """

    module: Path
    token_label: str | None
    token_serial: str | None
    read_pin: Callable[[], str] = field(repr=False)
    state_dir: Path
    parameters: str | None = None
    shared_dir: Path | None = None
    sessions: int = 4
    session_wait_seconds: float = 2.0
    generations: int = 1
    call_seconds: float = 10.0
    generation_seconds: float = 120.0
    plaintext_bytes: int = 1_572_864
    fips: bool = False
    process_allowed: bool = True
    opted_in: frozenset[str] = frozenset()
    results_checked: bool = True
    unwrapped_keys: int = 1_000
    observer: Observer = field(default_factory=Observer)
