"""A PostgreSQL of the tests' own, which lives in a directory and listens on no network."""

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text

from app.registry import migrate
from tests.shared.forks import COMMON
from tests.shared.waiting import COMMAND, PATIENCE_SECONDS, until

_SETTINGS = """
listen_addresses = ''
fsync = off
autovacuum = off
max_connections = 200
timezone = 'Asia/Kolkata'
lc_messages = 'C'
"""
_POOLER = """
[databases]
* = host={directory} user=test
[pgbouncer]
unix_socket_dir = {directory}
listen_port = 6432
auth_type = any
pool_mode = transaction
default_pool_size = 1
"""
# As unlike ours as may be, so that nothing holds by accident: the time zone, and the order of text.
_LOCALE = ["--locale-provider=icu", "--icu-locale=en-US"]
_FIRST_WITH_ICU = 15
_PATIENCE = f"--timeout={PATIENCE_SECONDS:.0f}"


def programs() -> Path | None:
    """Return the directory of the newest PostgreSQL's programs, as Debian has them."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: int(path.parts[-3]), default=None)
    return newest.parent if newest else None


class Cluster:
    """A running server. It cannot be root's: then it is that of the account ``postgres``."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._data = directory / "data"
        self._template: str | None = None
        self._become: list[str] = []
        if os.geteuid() == 0:
            account = pwd.getpwnam("postgres")
            os.chown(directory, account.pw_uid, account.pw_gid)
            self._become = [
                "setpriv",
                f"--reuid={account.pw_uid}",
                f"--regid={account.pw_gid}",
                "--clear-groups",
            ]
        self._make()
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write(f"{_SETTINGS}unix_socket_directories = '{directory}'\n")
        self.start()

    def _make(self) -> None:
        """Copy the files that the first of a run of the tests makes, which takes it a second."""
        if COMMON not in os.environ:  # a trial that is run alone
            self._make_first()
            return
        kept = Path(os.environ[COMMON], "cluster")
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not kept.exists():
                self._make_first()
                _copy(self._data, kept)
                return
        _copy(kept, self._data)

    def _make_first(self) -> None:
        locale = _LOCALE if int(self._programs.parent.name) >= _FIRST_WITH_ICU else []
        options = ["--username=test", "--auth=trust", "--encoding=UTF8", "--no-sync"]
        self._run("initdb", *options, *locale)

    def _run(self, program: str, *arguments: str) -> None:
        run = str(self._programs / program)
        command = [*self._become, run, f"--pgdata={self._data}", *arguments]
        subprocess.run(
            command,
            cwd="/",
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            check=True,
            stdout=subprocess.DEVNULL,
            timeout=COMMAND.seconds,
        )

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._run("pg_ctl", f"--log={self._directory}/log", "--wait", _PATIENCE, "start")

    def stop(self) -> None:
        """End the server as a crash would, with all connections."""
        self._run("pg_ctl", "--mode=immediate", "--wait", "stop")

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stop all its processes for one ``with`` block: they take connections, and no word."""
        postmaster = int((self._data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)
        until(lambda: _state(postmaster) == "T")  # so that it neither forks nor reaps
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        stopped = [postmaster, *map(int, children)]
        for process in stopped:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in reversed(stopped):
                os.kill(process, signal.SIGCONT)

    def url(self, database: str) -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://test@/{database}?host={self._directory}"

    @contextmanager
    def pooled(self, url: str) -> Iterator[str]:
        """Give the URL of a database by way of a PgBouncer, which lends one connection to all.

        Each has it for a transaction.
        """
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            pytest.skip("PgBouncer is not installed")
        settings = self._directory / "pgbouncer.ini"
        settings.write_text(_POOLER.format(directory=self._directory))
        pooler = subprocess.Popen(
            [*self._become, program, "--quiet", settings],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until((self._directory / ".s.PGSQL.6432").exists)
            yield f"{url}&port=6432"
        finally:
            pooler.terminate()
            pooler.wait()

    def empty(self, *, template: str = "template0", options: str = "") -> str:
        """Return the URL of a new database."""
        name = f"t{uuid4().hex}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} TEMPLATE {template} {options}"))
        engine.dispose()
        return self.url(name)

    def registry(self) -> str:
        """Return the URL of a new registry."""
        if self._template is None:
            url = self.empty()
            migrate(url)
            self._template = str(make_url(url).database)
        return self.empty(template=self._template)


def _copy(source: Path, target: Path) -> None:
    """Copy a directory as it is, with whose it is; there is all of it or none."""
    part = target.with_suffix(".part")
    subprocess.run(["cp", "--archive", source, part], check=True)
    part.rename(target)


def _state(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0]


@contextmanager
def running() -> Iterator[Cluster]:
    """Run a server for one ``with`` block."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    directory = Path(tempfile.mkdtemp(prefix="jose-hsm-postgresql-"))  # a socket's path is short
    try:
        cluster = Cluster(found, directory)
        try:
            yield cluster
        finally:
            cluster.stop()
    finally:
        shutil.rmtree(directory)
