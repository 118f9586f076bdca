"""How gunicorn serves jose-hsm: ``jose-hsm serve`` gives it this file.

The master never touches PKCS#11: a token's handles do not survive a fork. What is set here can be
set otherwise in ``GUNICORN_CMD_ARGS``, for example ``--max-requests 0``.
"""
# ruff: noqa: N999  # no module: gunicorn executes it, anew whenever it is reloaded

import os
import resource
import socket
import ssl
import sys
from pathlib import Path

from gunicorn.arbiter import Arbiter

import app.factory  # noqa: F401  # for the workers: each would import it anew
from app.config import Config
from app.observability import multiprocess as figures
from app.server.clock import Deadlines
from app.server.confinement import confine
from app.server.memory import freeze, share_arenas
from app.server.tls import Tls
from app.server.worker import Worker
from app.settings import ConfigError, is_loopback

try:
    service = Config.from_env(os.environ)
except ConfigError as error:
    sys.exit(f"jose-hsm: {error}")

bind = service.bind
workers = int(os.environ.get("WEB_CONCURRENCY", len(os.sched_getaffinity(0))))
worker_class = Worker
threads = 16
preload_app = False

# Each connection is an open file, and a shell or systemd lets a process have 1,024. Its threads
# need some for the token, the registry and the logs: without one the token is lost.
files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
worker_connections = min(1000, max(files - 128, files // 2))

# A worker is replaced now and then, and not all at the same time, whatever a library leaks.
max_requests = 200_000
max_requests_jitter = 50_000

# The parser in C (gunicorn_h1c) saves little, calls an unknown transfer coding malformed, takes two
# spaces for one, and needs a compiler. Never "auto": what happens to be installed must not decide.
http_parser = "python"

# A kid of any length is just unknown; this is as long as gunicorn lets a line be bounded.
limit_request_line = 8190

# The service asks for none of what a proxy may tell gunicorn, so nobody is believed: else any
# client on this host could set SCRIPT_NAME, and with it the path.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# A request may wait for an RSA key being generated, and whoever stops or reloads waits for it as
# long as the proxy would; a client that asks again within a minute finds its connection open.
# Keep-alive outlasts the proxy's own (60 s in nginx).
timeout = 60
graceful_timeout = 60
keepalive = 75

# A Unix socket that gunicorn makes is for its own user and group, as that of systemd is.
umask = 0o117

# The service logs its requests itself.
accesslog = None

# The heartbeat is a file that is touched all the time: on a busy disk that would block a worker.
worker_tmp_dir = figures.memory()
control_socket_disable = True
# Its debug lines repeat paths as they were sent; its info lines are no news to a terminal.
loglevel = {"debug": "info", "info": "warning"}.get(service.log_level, service.log_level)

if service.tls_certificate:
    certfile, keyfile = str(service.tls_certificate), str(service.tls_key)
    if service.tls_client_ca:
        ca_certs = str(service.tls_client_ca)
        # Where there are other ways, who comes without a certificate may know one of them.
        cert_reqs = ssl.CERT_REQUIRED if service.auth == ("mtls",) else ssl.CERT_OPTIONAL


def on_starting(server: Arbiter) -> None:
    """Refuse addresses that must not be served, and say at once if one is taken."""
    confine()  # the master has the PIN, if it is in the environment
    share_arenas()
    _refuse_bad_certificate()
    Worker.tls = Tls(server.cfg) if server.cfg.is_ssl else None
    freeze()
    is_first = not server.master_pid and "LISTEN_FDS" not in os.environ
    for address in server.cfg.address:
        if isinstance(address, tuple):
            _refuse_open(address[0])
            if is_first:
                _refuse_taken(*address)
        elif isinstance(address, str) and is_first:
            _refuse_no_place(Path(address))
    figures.prepare(service.state_dir)
    os.register_at_fork(after_in_parent=Worker.take_stops)


def on_exit(_server: Arbiter) -> None:
    """Leave no figures behind."""
    figures.remove()


def pre_fork(server: Arbiter, worker: Worker) -> None:
    """Give each worker a number, a processor, patience after failures, and less with clients."""
    figures.renew()
    if worker.tls:
        worker.tls.context()
    worker.hold_stops()
    worker.take_slot(server.WORKERS.values())
    worker.take_processor(server.WORKERS.values(), planned=server.num_workers)
    worker.deadlines = Deadlines(
        header_seconds=service.header_seconds, request_seconds=service.request_seconds
    )


def child_exit(_server: Arbiter, worker: Worker) -> None:
    """Free the number, and forget what was true only while the worker lived."""
    worker.leave_slot()
    figures.worker_ended(worker.slot)


def pre_exec(_server: Arbiter) -> None:
    """Refuse SIGUSR2: the workers of two masters would have the same numbers."""
    print(
        "jose-hsm: SIGUSR2 is not supported; use SIGHUP, or a restart", file=sys.stderr, flush=True
    )
    os._exit(os.EX_USAGE)


def when_ready(_server: Arbiter) -> None:
    """Tell the terminal where the service is."""
    scheme = "https" if service.tls_certificate else "http"
    address = bind if bind.startswith("unix:") else f"{scheme}://{bind}"
    token = service.token_label or service.token_serial or service.token_uri
    access = ", ".join(service.auth) or "no authentication: everybody is anonymous, loopback only"
    print(f'jose-hsm serves {address} (token "{token}", {access})', flush=True)


def _refuse_open(host: str) -> None:
    """Hold the rule of ``JOSE_HSM_BIND`` for gunicorn's own ``--bind`` too."""
    if not service.auth and not is_loopback(host):
        sys.exit(f"jose-hsm: {host}: without authentication only loopback addresses are served")


def _refuse_bad_certificate() -> None:
    """Say what is wrong with the files of TLS: gunicorn would, in a traceback or to each client."""
    if not service.tls_certificate:
        return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    named = "JOSE_HSM_TLS_CERTIFICATE and JOSE_HSM_TLS_KEY"
    try:
        context.load_cert_chain(certfile, keyfile, password=_no_password)
        if service.tls_client_ca:
            named = "JOSE_HSM_TLS_CLIENT_CA"
            context.load_verify_locations(ca_certs)
    except (OSError, ValueError) as error:
        sys.exit(f"jose-hsm: {named} cannot be used: {error}")


def _refuse_no_place(path: Path) -> None:
    """Say what is wrong with the place of a socket: gunicorn would in a traceback, or try on."""
    try:
        is_place = path.is_socket() or (path.parent.is_dir() and not path.exists())
        reason = "" if is_place else "it is no socket, or in no directory"
    except OSError as error:
        reason = str(error.strerror)
    if reason:
        sys.exit(f"jose-hsm: cannot listen on {path}: {reason}; choose another JOSE_HSM_BIND")


def _no_password() -> str:
    """Refuse to ask for one: nobody is there to type it each time that a worker starts."""
    raise ValueError("the key has a password")


def _refuse_taken(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            sys.exit(
                f"jose-hsm: cannot listen on {host}:{port}: {error.strerror}; "
                "choose another JOSE_HSM_BIND (jose-hsm dev --port …, make run PORT=…)"
            )
