"""The last hour, minute by minute, in a file: the same whichever worker answers.

The metrics only ever say how much has been counted since the master started. So one worker of each
master looks at them every few seconds, and adds what is new to the minute that it is.
"""

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import hsm
from app import compact_json
from app.observability.kinds import KINDS, Count, Kind, Outcomes, Tally, tally

logger = logging.getLogger(__name__)

MINUTES: Final = 60
_PAUSE_SECONDS: Final = 5.0
_MINUTE_SECONDS: Final = 60
_MOST_SOURCES: Final = 8
_NOTHING: Final = Outcomes()


class Known(NamedTuple):
    """What the file holds: tallies by minute since the epoch, and how far each source is in it."""

    minutes: dict[int, Tally]
    seen: dict[str, Tally]


class LastHour:
    """What was answered in each of the last ``MINUTES`` minutes.

    ``path`` is its file, of some kilobytes, written whole or not at all. ``source`` names the
    counters behind ``counts``: how far they are in the file stands in it, so that a sample counts
    once whoever takes it, and other counters, of a new master, begin at zero. ``kinds`` are those
    of the endpoints.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: str,
        counts: Callable[[], Iterable[Count]],
        kinds: Mapping[str, Kind],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._path = path
        self._source = source
        self._counts = counts
        self._kinds = kinds
        self._now = now
        self._last: Tally = {}
        self._is_failing = False
        self._turn = ExitStack()
        self._is_our_turn = False

    def start(self, turn: Path | None) -> None:
        """Begin to sample, while ``turn`` is this process's; call after fork, never before.

        When the process that holds it dies, the next one that looks takes it and goes on.
        """
        hsm.Periodic(
            "history", lambda: self._sample_in(turn), pause_seconds=_PAUSE_SECONDS, at_once=True
        ).start()

    def sample(self) -> None:
        """Add what has been counted since the last sample to the present minute.

        Raises ``OSError`` or ``hsm.TokenUnavailable`` if the file cannot be written; nothing is
        lost then, as the next sample adds it.
        """
        with hsm.file_lock(self._path.with_name(f"{self._path.name}.lock")):
            known = self._read()
            total = tally(self._counts(), self._kinds)
            before = known.seen.pop(self._source, self._last)
            minute = self._minute()
            present = known.minutes.get(minute, {})
            known.minutes[minute] = {
                kind: Outcomes.together(
                    (
                        present.get(kind, _NOTHING),
                        total.get(kind, _NOTHING).since(before.get(kind, _NOTHING)),
                    )
                )
                for kind in KINDS
            }
            self._write(Known(self._recent(known.minutes), known.seen | {self._source: total}))
            self._last = total

    def hour(self) -> Mapping[str, list[Outcomes]]:
        """Return the outcomes of each kind, by minute, the present one last."""
        try:
            minutes = self._read().minutes
        except OSError:
            minutes = {}
        last = self._minute()
        return {
            kind: [
                minutes.get(minute, {}).get(kind, _NOTHING)
                for minute in range(last - MINUTES + 1, last + 1)
            ]
            for kind in KINDS
        }

    def _sample_in(self, turn: Path | None) -> None:
        """Take a sample if it is our turn; that it fails is logged once, until it does not."""
        try:
            if turn is None or self._has(turn):
                self.sample()
                self._is_failing = False
        except (OSError, hsm.TokenUnavailable):  # it comes back when the disk does
            if not self._is_failing:
                logger.warning("no history is kept now")
            self._is_failing = True

    def _has(self, turn: Path) -> bool:
        """Take ``turn`` for the life of the process, unless another has it; tell whether we do."""
        if not self._is_our_turn:
            with suppress(hsm.TokenUnavailable):
                self._turn.enter_context(hsm.file_lock(turn, wait_seconds=0))
                self._is_our_turn = True
        return self._is_our_turn

    def _minute(self) -> int:
        return int(self._now()) // _MINUTE_SECONDS

    def _recent(self, minutes: Mapping[int, Tally]) -> dict[int, Tally]:
        """Return those of the hour; a clock that was set back leaves none from the future."""
        last = self._minute()
        return {minute: minutes[minute] for minute in minutes if last - MINUTES < minute <= last}

    def _read(self) -> Known:
        """Return what the file holds, nothing if it is not there or not ours; raise ``OSError``."""
        try:
            members = json.loads(self._path.read_bytes())
            return Known(
                {int(minute): _tally_of(found) for minute, found in members["minutes"].items()},
                {source: _tally_of(found) for source, found in members["seen"].items()},
            )
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return Known({}, {})

    def _write(self, known: Known) -> None:
        members = {
            "minutes": known.minutes,
            "seen": dict(list(known.seen.items())[-_MOST_SOURCES:]),
        }
        text = compact_json.dumps(members)
        hsm.replace(self._path, text.encode("ascii"), synced=False)


def _tally_of(members: Mapping[str, Any]) -> Tally:
    return {kind: Outcomes(*map(int, numbers)) for kind, numbers in members.items()}
