"""Functional verdicts: whether a completed task does what its tests ask.

The completed function comes from a model and is not trusted; the test comes from the benchmark and is. `Program` keeps
the two apart. How they are run, and by which route, is told in docs/sandbox.md. `unsafe` runs programs with this
user's rights and WITHOUT A SANDBOX; only a person chooses it.
"""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from queue import SimpleQueue
from typing import Literal, Protocol, cast, get_args

from codegen25.engine.machine import usable_cores
from codegen25.errors import CodegenError
from codegen25.evaluate.sandbox.cell import REMEDY, Cell, Way

# Programs that are under way for each worker, so that none waits for the reader of verdicts.
AHEAD = 4
# Characters of a verdict's detail.
MAX_DETAIL = 2000

Status = Literal["passed", "wrong", "error", "timeout", "memory", "killed"]
Route = Literal["auto", "bubblewrap", "namespaces", "unsafe"]


@dataclass(frozen=True)
class Verdict:
    """`detail` is for a person: the last lines of the traceback, bounded, control characters escaped; "" when passed.

    `wrong`: an assertion of the test failed. `error`: any other exception, a syntax error, or an exit. `memory`: more
    than its share. `timeout`: wall clock or CPU time. `killed`: by a signal. `seconds`: of wall clock.
    """

    status: Status
    detail: str
    seconds: float


@dataclass(frozen=True)
class Limits:
    """Bounds of one program: seconds of wall clock (and of CPU, rounded up, for the solution); bytes of memory, as
    address space, for the solution and for its test; bytes of a file and of the whole scratch folder; threads."""

    seconds: float = 10.0
    memory: int = 2 << 30
    file_size: int = 4 << 20
    scratch: int = 16 << 20
    threads: int = 16


LIMITS = Limits()


class Completable(Protocol):
    """What a task has for a judge."""

    @property
    def prompt(self) -> str: ...
    @property
    def suffix(self) -> str: ...
    @property
    def test(self) -> str: ...
    @property
    def entry_point(self) -> str: ...


@dataclass(frozen=True)
class Program:
    """A solution, not trusted, and its test, trusted.

    The test is source that defines `check(candidate)`, which is called with the function named `entry_point`, or
    source that calls that function by its name. `context` is trusted source that the test may use: what stands before
    the function in the task's prompt.
    """

    solution: str
    test: str
    entry_point: str
    context: str = ""


def program(task: Completable, completion: str) -> Program:
    """What is judged of a completion. The context is the prompt up to the function, where that stands in it."""
    function = rf"^(?:@.*\n)*(?:async )?def {re.escape(task.entry_point)}\("
    found = re.search(function, task.prompt, re.MULTILINE) if task.entry_point else None
    context = task.prompt[: found.start()] if found else ""
    return Program(task.prompt + completion + task.suffix, task.test, task.entry_point, context)


def available_route(route: Route = "auto") -> Way:
    """The way that `judge` takes: bubblewrap where it is installed, else namespaces of our own. It is tried.

    Raises CodegenError, with the remedy, where a sandbox cannot be opened: `unsafe` has to be asked for.
    """
    _need_linux()
    if route == "unsafe":
        return route
    ways: tuple[Way, ...] = ("bubblewrap", "namespaces") if route == "auto" else (route,)
    failed = []
    for way in ways:
        try:
            _Cell(way, LIMITS).close()
        except CodegenError as error:
            failed.append(str(error).removesuffix(f"; {REMEDY}"))
        else:
            return way
    raise CodegenError(f"programs cannot be run protected here ({'; '.join(failed)}); {REMEDY}")


def judge(
    programs: Iterable[Program], *, limits: Limits = LIMITS, workers: int | None = None, route: Route = "auto"
) -> Iterator[Verdict]:
    """One verdict per program, in order, as they come; `programs` is read a little ahead.

    `workers` is how many run side by side, by default one a core. Raises CodegenError as `available_route` does.
    """
    _need_linux()
    way = available_route() if route == "auto" else route
    count = workers or usable_cores()
    waiting: deque[Future[Verdict]] = deque()
    cells: SimpleQueue[_Cell | int] = SimpleQueue()
    for number in range(count):
        cells.put(number)

    def run(program: Program) -> Verdict:
        cell = cells.get()
        try:
            if isinstance(cell, int):
                cell = _Cell(way, limits, cell)
            return cell.judge(program)
        finally:
            cells.put(cell)

    pool = ThreadPoolExecutor(count)
    try:
        for program in programs:
            waiting.append(pool.submit(run, program))
            if len(waiting) >= AHEAD * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        while not cells.empty():
            if isinstance(cell := cells.get(), _Cell):
                cell.close()


def _need_linux() -> None:
    if sys.platform != "linux":
        raise CodegenError(f"programs are judged on Linux, and this is {sys.platform}; take the samples there")


class _Cell(Cell):
    """A sandbox that speaks of programs and verdicts."""

    def __init__(self, way: Way, limits: Limits, worker: int = 0) -> None:
        super().__init__(way, asdict(limits), worker)

    def judge(self, program: Program) -> Verdict:
        status, detail, seconds = self.run(asdict(program))
        assert status in get_args(Status)
        return Verdict(cast(Status, status), shown(detail), seconds)


def shown(text: str) -> str:
    """The end of a text that anybody wrote, for a terminal or a page: what cannot be printed is escaped."""
    escaped = "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)
    return escaped[-MAX_DETAIL:]
