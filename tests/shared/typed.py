"""``jose-hsm`` as a shell finds it, in processes that need not import anything."""

import json
import os
import shlex
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

from scripts.throwaway import ROOT
from tests.shared.forks import fork
from tests.shared.nursery import MOST_BYTES
from tests.shared.waiting import are_promises_held

_COMMAND = """#!/bin/sh
'''exec' {python} -IS "$0" "$@" # for a path with spaces
' '''
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as tests:
    tests.connect({address!r})
    typed = [sys.argv[1:], dict(os.environ), os.getcwd()]
    socket.send_fds(tests, [json.dumps(typed).encode()], [1, 2, 0])
    os._exit(int(tests.recv(16)))
"""
"""Has the tests fork the command, with the files, environment and directory of the shell."""


@contextmanager
def searched() -> Iterator[str]:
    """Give a ``PATH`` on which ``jose-hsm`` is: as it is installed where promises are held."""
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    if are_promises_held():
        yield path
        return
    with (
        tempfile.TemporaryDirectory(prefix="jose-hsm-") as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener,
    ):
        command, address = Path(directory, "jose-hsm"), f"{directory}/socket"
        python = shlex.quote(sys.executable)
        command.write_text(_COMMAND.format(python=python, address=address))
        command.chmod(stat.S_IRWXU)
        listener.bind(address)
        listener.listen()
        thread = Thread(target=_answer, args=(listener,))
        thread.start()
        try:
            yield f"{directory}:{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer(listener: socket.socket) -> None:
    """Run what is typed until ``listener`` is shut down; commands of a pipe run together."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        Thread(target=_run, args=(connection,)).start()


def _run(connection: socket.socket) -> None:
    with connection:
        message, files, *_ = socket.recv_fds(connection, MOST_BYTES, 3)
        arguments, environment, directory = json.loads(message)
        process = fork("jose-hsm", arguments, environment, files=files, directory=directory)
        for file in files:
            os.close(file)
        connection.send(str(process.wait()).encode())
