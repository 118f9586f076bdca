"""What was seen, in lines, and whether it may be."""

import collections
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from scripts.trials.soak.ends import Ends
from scripts.trials.soak.forgers import Forgers
from scripts.trials.soak.latencies import Latencies, Percentiles
from scripts.trials.soak.size import Size
from scripts.trials.soak.table import Table
from scripts.trials.soak.trouble import Trouble
from scripts.trials.soak.victim import Victim
from tests.faults.service import Service, use

# What a worker may have at the end above what it had when warm.
MEMORY_MIB: Final = 48
DESCRIPTORS: Final = 24
THREADS: Final = 8

# How long good callers may wait beside bad ones: so many times as long as in peace.
MOST_TIMES: Final = 10
ALWAYS_ALLOWED_MILLISECONDS: Final = 500.0
BAD_CALLERS: Final = ("slow clients", "forged tokens")
NO_TIMES: Final = Percentiles(0, 0.0, 0.0, 0.0)


def show_answers(table: Table, clients: Sequence[Victim], ends: Ends) -> None:
    """Show what good callers were told; nothing of it may be wrong."""
    answers = sum((client.answers for client in clients), collections.Counter[str]())
    codes = sum((client.codes for client in clients), collections.Counter[str]())
    table.show("requests answered", sum(answers.values()))
    table.show_counts("answers by endpoint and status", answers)
    table.show_counts("refusals by status and code", codes)
    wrong = collections.Counter(line for client in clients for line in client.wrong)
    table.show_zero("wrong answers", sum(wrong.values()))
    for line, number in wrong.most_common(10):
        print(f"  {number} of {line}")
    table.show_zero("false 404", sum(len(client.false_404) for client in clients))
    cut_off = [moment for client in clients for moment in client.cut_off]
    table.show("requests cut off", len(cut_off))
    unexplained = sum(not ends.explain(moment) for moment in cut_off)
    table.show_zero("requests cut off while no worker ended", unexplained)


def show_keys(table: Table, service: Service, clients: Sequence[Victim]) -> None:
    """Show what has become of their keys; none may be lost."""
    living = [key for client in clients for key in client.living.values()]
    table.show("kids returned and not destroyed", len(living))
    table.show_zero("kids lost", sum(use(service.api, key) != HTTPStatus.OK for key in living))
    table.show("left half done and cleared away", _numbers(service.reconcile())[0])
    left = sum(_numbers(service.reconcile()))
    table.show_zero("differences between registry and token after that", left)


def show_forgeries(table: Table, forgers: Forgers) -> None:
    """Show what forgers were told; none may be let in."""
    table.show_counts("answers to forged credentials by status", forgers.answers)
    table.show_zero("of them let in", forgers.admitted)


def show_latencies(table: Table, latencies: Latencies) -> None:
    """Show how long good callers waited; beside bad ones it may not be for much longer."""
    found = latencies.percentiles()
    print("uses of keys: number, p50, p95, p99 in ms")
    peace = found.get("peace", NO_TIMES)
    bound = max(MOST_TIMES * peace.p99, ALWAYS_ALLOWED_MILLISECONDS)
    for kind, times in found.items():
        table.show(f"  {kind}", times, bad=kind in BAD_CALLERS and times.p99 > bound)


def _numbers(reconciliation: str) -> list[int]:
    return [int(number) for number in re.findall(r": (\d+)$", reconciliation, re.MULTILINE)]


def show_workers(  # noqa: PLR0913, PLR0917  # all that was seen of them
    table: Table, service: Service, ends: Ends, trouble: Trouble, before: Size, after: Size
) -> None:
    """Show what has become of the workers; none may crash or grow."""
    table.show_counts("troubles by kind", trouble.kinds)
    table.show("calls into the token that met a fault", service.faults.struck())
    table.show("logins", service.faults.calls("C_Login"))
    table.show("of them re-initialisations", service.faults.calls("C_Login") - service.faults.boots)
    table.show("workers ended and replaced", ends.number)
    crashes = re.findall(r"was sent SIG(?!KILL|TERM)\w+", service.log.read_text())
    table.show_zero("of them crashed", len(crashes))
    bounds = Size(MEMORY_MIB, DESCRIPTORS, THREADS)
    for name, first, last, bound in zip(Size._fields, before, after, bounds, strict=True):
        is_bad = last > first + bound
        table.show(
            f"{name} of the largest worker, warm and at the end",
            f"{first:.0f} {last:.0f}",
            bad=is_bad,
        )
