"""A backup holds the keys that the registry keeps: they are good for whoever can unwrap them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.audit import AuditLog, since
from app.http.router import CHANGES
from app.operator import backup
from app.operator.errors import BackupError
from app.operator.restoration import plan, restore
from hsm import Hsm, KeyNotFound
from tests.token.test_destroy_after import OWNER
from tests.token.test_wrapped_keys_in_trouble import host, make, on_sqlite, sign

__all__ = ["host"]  # a fixture

# No other token of the tests has a key-encryption key.
pytestmark = [pytest.mark.softhsm, on_sqlite]


class Saved:
    """A backup of the registry of a host, and the audit log since."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._file, self._log = directory / "backup", directory / "since.log"
        self._began = datetime.now(UTC)
        backup.write(self._file, url, mac=None)
        AuditLog(self._log).record(endpoint="random.generate", status=200)

    def log(self, **members: Any) -> None:
        """Write a line."""
        AuditLog(self._log).record(status=200, **members)

    def restore(self, token: Hsm | None) -> None:
        """Put it back."""
        history = since([self._log], self._began, CHANGES)
        planned = plan(self._file, self._url, history, encryptions=0, token=token)
        restore(planned, self._url, force=True)


def test_a_key_comes_back_with_the_registry_and_works(host, token, registry_url, tmp_path):
    (kid,) = make(host)
    saved = Saved(registry_url, tmp_path)
    host.keyring.creation.destroy(OWNER, str(kid))
    with pytest.raises(KeyNotFound):
        host.keyring.creation.destroy(OWNER, str(kid))
    saved.restore(token)
    assert sign(host, kid)


def test_what_was_made_after_the_backup_is_gone_and_leaves_nothing(
    host, token, registry_url, tmp_path
):
    saved = Saved(registry_url, tmp_path)
    make(host)
    saved.restore(token)
    found = host.keyring.recovery.reconcile(dry_run=True)
    assert (found.settled, found.missing) == ([], [])
    assert host.registry.specs() == {}


def test_a_key_that_has_another_owner_since_is_sealed_anew(host, token, registry_url, tmp_path):
    (kid,) = make(host)
    saved = Saved(registry_url, tmp_path)
    saved.log(endpoint="keys.change", kid=str(kid), owner="token:bob")
    with pytest.raises(BackupError, match="has another owner since"):
        saved.restore(None)
    saved.restore(token)
    key = host.registry.find(kid)
    assert key is not None
    assert key.owner == "token:bob"
    assert sign(host, kid)
