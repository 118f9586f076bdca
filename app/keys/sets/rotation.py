"""Key sets rotate: each step when its time has come, once, whoever looks.

A version is made and published; from the line in the audit log on, which comes after that, it is
published for ``publish_ahead``; then it is current, and the one before it is published for
``retain``. What is left half done by whoever dies, the next one who looks goes on with.
"""

import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import hsm
from app.audit import AuditLog
from app.errors import AuditUnavailable, RegistryUnavailable
from app.keys.budget import WARNING_AT
from app.keys.sets.versions import VersionCreation
from app.registry import KeySet, Overtaken, Policy, Registry, Version, VersionState
from hsm import HsmError, TokenUnavailable

logger = logging.getLogger(__name__)

_TURN_SECONDS: Final = 0.0
_PATIENCE_SECONDS: Final = 10.0
_MOST_STEPS: Final = 8
OTHER_HOST_GRACE: Final = timedelta(seconds=30)
"""How long a line may be missing that another host is about to write."""

_DAY: Final = timedelta(days=1)


class Counts(Protocol):
    """Who counts what is done."""

    def stepped(self, transition: str) -> None:
        """Count a transition."""

    def rotates_in(self, days: float) -> None:
        """Show when the next set rotates; infinite if none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """Makes the transitions of key sets, and writes each into ``audit_log``.

    ``lock`` has the workers of a host take turns. ``max_age`` is how long the JWKS may be kept by
    those who fetch it: no version signs that has been published for less.
    """

    registry: Registry
    creation: VersionCreation
    audit_log: AuditLog | None
    lock: Path
    max_age: timedelta
    counts: Counts | None = None
    most_encryptions: int = WARNING_AT

    def settle(self) -> None:
        """Make all steps whose time has come; what cannot be done now is left for the next time."""
        now = datetime.now(UTC)
        try:
            outlook = self.registry.keysets.outlook(most_encryptions=self.most_encryptions)
            self._show_next(outlook.rotates_at, now)
            if outlook.due_at is None or outlook.due_at > now:
                return
            with hsm.file_lock(self.lock, wait_seconds=_TURN_SECONDS):
                for keyset in self._due():
                    self._advance(keyset.name)
        except (TokenUnavailable, RegistryUnavailable) as error:
            logger.debug("key sets are left to another worker, or to later: %s", error)

    def go_on(self, name: str) -> None:
        """Make the steps of one key set that are due, and wait for whoever is at it.

        Raises ``TokenUnavailable`` if he is for long.
        """
        with hsm.file_lock(self.lock, wait_seconds=_PATIENCE_SECONDS):
            self._advance(name)

    def _show_next(self, rotates_at: datetime | None, now: datetime) -> None:
        if self.counts is not None:
            self.counts.rotates_in(math.inf if rotates_at is None else (rotates_at - now) / _DAY)

    def _due(self) -> list[KeySet]:
        now = datetime.now(UTC)
        return list(self.registry.keysets.due(now, most_encryptions=self.most_encryptions))

    def _advance(self, name: str) -> None:
        """Make those steps of one key set; log why if one cannot be made."""
        try:
            for _ in range(_MOST_STEPS):
                keyset = self.registry.keysets.find(name)
                if keyset is None or not self._step(keyset, datetime.now(UTC)):
                    return
        except Overtaken:
            logger.debug("the key set %s is looked after by somebody else", name)
        except (HsmError, RegistryUnavailable, AuditUnavailable) as error:
            logger.info("the key set %s does not go on now: %s", name, error)

    def ahead(self, policy: Policy | None) -> timedelta:
        """Return how long a version is published before it signs."""
        return self.max_age if policy is None else max(policy.publish_ahead, self.max_age)

    def _step(self, keyset: KeySet, now: datetime) -> bool:
        """Make the first step that is due; return whether there was one."""
        if keyset.unaudited is not None:
            return self._write(keyset, now)
        cause = self._cause(keyset, now)
        has_next = keyset.version(keyset.next_kid) is not None
        if cause and not has_next:
            self._publish(keyset, cause)
        elif has_next and self._is_to_rotate(keyset, now):
            self._rotate(keyset, now)
        elif retiring := _retiring(keyset, now):
            self._retire(keyset, retiring)
        else:
            return False
        return True

    def _cause(self, keyset: KeySet, now: datetime) -> str | None:
        """Return why another version is to be made now, if it is."""
        if keyset.is_urgent:
            return "revocation"
        is_due = keyset.due_at is not None and keyset.due_at <= now
        if is_due or keyset.has_lost_next:
            return "time"
        is_spent = self.registry.keysets.is_spent(keyset, self.most_encryptions)
        return "budget" if is_spent else None

    def _is_to_rotate(self, keyset: KeySet, now: datetime) -> bool:
        is_time = keyset.rotates_at is not None and keyset.rotates_at <= now
        return keyset.is_urgent or is_time

    def _publish(self, keyset: KeySet, cause: str) -> None:
        key = self.creation.new_key(keyset)
        event = {"transition": "published", "version": str(key.kid), "cause": cause}
        complete = partial(self.registry.keysets.steps.add_next, keyset, event=event)
        self.creation.make(key, complete, is_published=keyset.is_published)
        self._went_on(keyset, "published")

    def _rotate(self, keyset: KeySet, now: datetime) -> None:
        rotates_at = self.next_rotation(keyset, now)
        event = {
            "transition": "rotated",
            "version": str(keyset.next_kid),
            "before": str(keyset.current_kid),
            "rotates_at": rotates_at and rotates_at.isoformat(),
        }
        due_at = rotates_at and rotates_at - self.ahead(keyset.policy)
        self.registry.keysets.steps.rotate(
            keyset, event, now=now, rotates_at=rotates_at, due_at=due_at
        )
        self._went_on(keyset, "rotated")

    def next_rotation(self, keyset: KeySet, now: datetime) -> datetime | None:
        """Return when a set rotates again that does so now: a period after it was to.

        What was missed, while nothing was there to rotate, is not made up for.
        """
        if keyset.policy is None:
            return None
        regular = (keyset.rotates_at or now) + keyset.policy.every
        return regular if now < regular <= now + keyset.policy.every else now + keyset.policy.every

    def _retire(self, keyset: KeySet, version: Version) -> None:
        event = {"transition": "retired", "version": str(version.kid)}
        publishing = self.creation.publication.tag
        self.registry.keysets.steps.retire(keyset, version, event, publishing)
        self._went_on(keyset, "retired")

    def _went_on(self, keyset: KeySet, transition: str) -> None:
        logger.info("a version of the key set %s is %s", keyset.name, transition)
        if self.counts is not None:
            self.counts.stepped(transition)

    def _write(self, keyset: KeySet, now: datetime) -> bool:
        """Write the line of the last step; another host has time to write its own."""
        steps = self.registry.keysets.steps
        stepped_at = keyset.changed_at or now
        is_own = keyset.host == steps.host
        if not is_own and stepped_at > now - OTHER_HOST_GRACE:
            return False
        self._record(keyset, stepped_at)
        told_at = datetime.now(UTC)
        return steps.tell(keyset, now=told_at, **self._times_from(keyset, told_at))

    def _record(self, keyset: KeySet, stepped_at: datetime) -> None:
        """Write a line unless somebody has who was killed before he could note it."""
        if self.audit_log is None:
            return
        step = {"endpoint": "janitor", "keyset": keyset.name, "step": keyset.step}
        try:
            if not self.audit_log.has(stepped_at, **step):
                self.audit_log.record(is_synced=True, **step, **(keyset.unaudited or {}))
        except OSError as error:
            raise AuditUnavailable from error

    def _times_from(self, keyset: KeySet, now: datetime) -> dict[str, Any]:
        """Return when a set rotates whose next version is published from ``now`` on."""
        version = keyset.version(keyset.next_kid)
        if version is None or version.published_at is not None:
            return {}
        earliest = now if keyset.is_urgent else now + self.ahead(keyset.policy)
        planned = keyset.rotates_at or earliest
        is_early = (keyset.unaudited or {}).get("cause") != "time"
        rotates_at = earliest if is_early else max(planned, earliest)
        return {"rotates_at": rotates_at, "due_at": rotates_at}


def _retiring(keyset: KeySet, now: datetime) -> Version | None:
    """Return the first previous version that has been published for long enough."""
    return next(
        (
            version
            for version in keyset.versions
            if version.state is VersionState.PREVIOUS
            and version.retires_at is not None
            and version.retires_at <= now
        ),
        None,
    )
