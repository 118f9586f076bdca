"""What threads share of memory, and what processes do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.throwaway import ROOT

ARENAS = """
import ctypes, sys, threading
from app.server.memory import share_arenas
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fopen.restype = ctypes.c_void_p
share_arenas()
barrier = threading.Barrier(7)

def allocate():
    assert libc.malloc(ctypes.c_size_t(4096))
    barrier.wait()  # who ends leaves its arena to the next
    barrier.wait()

for _ in range(6):
    threading.Thread(target=allocate).start()
barrier.wait()
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
barrier.wait()
"""

LARGE = """
import ctypes, sys, threading
from app.server.memory import settle, share_arenas
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
size = int(sys.argv[1])
pieces = (ctypes.c_void_p * (10_000_000 // size))()  # nothing else lies between them

def resident_kib():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Rss"))

def allocate():
    for number in range(len(pieces)):
        pieces[number] = libc.malloc(ctypes.c_size_t(size))
        ctypes.memset(pieces[number], 1, size)
    for piece in pieces:
        libc.free(ctypes.c_void_p(piece))

def kept_kib():
    before = resident_kib()
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
    return resident_kib() - before

share_arenas()
libc.free(ctypes.c_void_p(libc.malloc(ctypes.c_size_t(8_000_000))))  # glibc would learn from it
given_back = kept_kib()
settle()
print(given_back, kept_kib())
"""
OF_AN_ALLOCATION_KIB = 5_000

IMPORTS = """
import gc, os
from app.server.memory import freeze

def own_kib():
    with open("/proc/self/smaps_rollup") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

imported = [[] for _ in range(100_000)]
freeze()
if os.fork():
    os.wait()
else:
    before = own_kib()
    gc.collect()
    print(own_kib() - before, flush=True)
    os._exit(0)
"""
OF_A_COLLECTION_KIB = 1_000


@pytest.mark.skipif(sys.platform != "linux", reason="glibc has arenas")
@pytest.mark.parametrize(("asked", "arenas"), [("", 2), ("4", 4)])
def test_threads_share_as_many_arenas_as_are_asked_for(tmp_path: Path, asked: str, arenas: int):
    path = tmp_path / "arenas.xml"
    own = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment = own | ({"MALLOC_ARENA_MAX": asked} if asked else {})
    command = [sys.executable, "-c", ARENAS, str(path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert path.read_text("ascii").count("<heap nr=") == arenas


@pytest.mark.skipif(sys.platform != "linux", reason="glibc has arenas")
@pytest.mark.parametrize("size", [50_000, 1_000_000])
def test_what_is_free_is_given_back_until_a_worker_has_settled(size: int):
    own = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    command = [sys.executable, "-c", LARGE, str(size)]
    done = subprocess.run(command, cwd=ROOT, env=own, check=True, capture_output=True, text=True)
    given_back, kept = map(int, done.stdout.split())
    assert given_back < OF_AN_ALLOCATION_KIB < kept


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what a process has of its own")
def test_what_is_imported_stays_shared_when_a_process_collects():
    command = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) < OF_A_COLLECTION_KIB  # 8,400 if it were not frozen
