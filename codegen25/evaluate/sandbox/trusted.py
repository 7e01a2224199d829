"""The side of the test: run it with a stand-in for the solution that asks the other process, and find the verdict.

`passed` is found here and nowhere else: the test ran to its end, in this interpreter, on values of builtin types.
"""

from __future__ import annotations

import builtins
import contextlib
import functools
import importlib
import linecache
import sys
import traceback
from collections.abc import Iterator
from types import CodeType
from typing import Any

from codegen25.evaluate.sandbox import values, wire

NAME = "<test>"
MAX_TRACE = 2000


class Stopped(BaseException):
    """The solution's process is gone or talks nonsense. No test may catch this."""


class Solution:
    """The other process, by its channel: what to read from, and what to write to."""

    def __init__(self, hears: int, asks: int) -> None:
        self._hears, self._asks = hears, asks
        self.names: frozenset[str] = frozenset()
        self.trace: dict[int, tuple[BaseException, str]] = {}  # errors that were raised there, by identity
        self.stopped: Stopped | None = None

    def define(self) -> None:
        """Wait until it is defined. Raises the error that defining it raised."""
        names = self._receive("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self._stop("the solution sent no list of names")
        self.names = frozenset(names)

    def call(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What the function returns. Lists, dicts and sets among the arguments become what it made of them."""
        arguments = [values.encode(item) for item in args]
        for item in (*args, *kwargs.values()):
            if isinstance(item, values.Foreign) or callable(item):
                raise TypeError(f"an argument of type {type(item).__name__} cannot be given to the solution")
        self._send([name, arguments, {key: values.encode(item) for key, item in kwargs.items()}])
        answer = self._receive(None)
        try:
            changed = {int(number): values.decode(item) for number, item in answer["changed"].items()}
            value = values.decode(answer["value"])
            for number, content in changed.items():
                _replace(args[number], content)
        except (wire.Malformed, RecursionError, KeyError, ValueError, TypeError, AttributeError, IndexError):
            self._stop("the solution's answer is no value")
        return value

    def _send(self, message: object) -> None:
        try:
            wire.send(self._asks, message)
        except wire.Closed:
            self._stop("gone")

    def _receive(self, key: str | None) -> Any:
        try:
            answer = wire.receive(self._hears)
        except wire.Closed:
            self._stop("gone")
        except wire.Malformed as error:
            self._stop(f"the solution sent {error}")
        if not isinstance(answer, dict):
            self._stop("the solution's answer is no answer")
        if "raised" in answer:
            self._raise(answer)
        return answer.get(key) if key else answer

    def _raise(self, answer: dict[str, Any]) -> None:
        kind = getattr(builtins, str(answer["raised"]), None)
        text = f"{answer['raised']}: {answer.get('text')}"
        error: Exception = RuntimeError(text)
        if isinstance(kind, type) and issubclass(kind, Exception):
            with contextlib.suppress(TypeError, ValueError, wire.Malformed, RecursionError):
                error = kind(*values.decode(answer.get("args")))
        self.trace[id(error)] = error, str(answer.get("trace"))[-MAX_TRACE:]
        raise error

    def _stop(self, why: str) -> None:
        self.stopped = Stopped(why)
        raise self.stopped


def _replace(argument: Any, content: Any) -> None:
    if (isinstance(argument, list) and isinstance(content, list)) or (
        isinstance(argument, bytearray) and isinstance(content, bytearray)
    ):
        argument[:] = content
    elif (isinstance(argument, dict) and isinstance(content, dict)) or (
        isinstance(argument, set) and isinstance(content, set)
    ):
        argument.clear()
        argument.update(content)
    else:
        raise TypeError


def verdict(hears: int, asks: int, test: str, entry_point: str, context: str) -> tuple[str, str]:
    """(status, detail): `passed`, `wrong`, `error`, `memory`, or `gone` when the other process is no more."""
    solution = Solution(hears, asks)
    try:
        solution.define()
        _run(solution, test, entry_point, context)
    except BaseException as error:
        if solution.stopped:  # whatever the test made of it
            return ("gone", "") if str(solution.stopped) == "gone" else ("error", str(solution.stopped))
        known, trace = solution.trace.get(id(error), (None, ""))
        status = "memory" if isinstance(error, MemoryError) else "error"
        if known is error:
            return status, trace
        return ("wrong" if isinstance(error, AssertionError) else status), _trace(error)
    return ("gone", "") if solution.stopped else ("passed", "")


def _run(solution: Solution, test: str, entry_point: str, context: str) -> None:
    namespace: dict[str, Any] = {}
    exec(compile(context, "<context>", "exec", dont_inherit=True), namespace)
    linecache.cache[NAME] = (len(test), None, test.splitlines(keepends=True), NAME)
    code = _compiled(test)
    for name in _names(code):
        if name not in namespace and not hasattr(builtins, name):
            if name in solution.names:
                namespace[name] = _stand_in(solution, name)
            elif name in sys.stdlib_module_names:  # which the solution may have imported for both
                namespace[name] = importlib.import_module(name)
    exec(code, namespace)
    if entry_point and "check" in namespace:
        if entry_point not in solution.names:
            raise NameError(f"name {entry_point!r} is not defined by the solution")
        namespace["check"](_stand_in(solution, entry_point))


@functools.lru_cache(maxsize=8)
def _compiled(test: str) -> CodeType:
    """Samples of one task come one after the other."""
    return compile(test, NAME, "exec", dont_inherit=True)


def _stand_in(solution: Solution, name: str) -> Any:
    def candidate(*args: Any, **kwargs: Any) -> Any:
        return solution.call(name, args, kwargs)

    return candidate


def _names(code: CodeType) -> Iterator[str]:
    """Every global name that the code or a function in it uses, attributes too."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _trace(error: BaseException) -> str:
    step = error.__traceback__
    while step and step.tb_frame.f_code.co_filename != NAME:
        step = step.tb_next
    frames = [frame for frame in traceback.extract_tb(step) if frame.filename == NAME]
    return "".join(traceback.format_list(frames) + traceback.format_exception_only(error))[-MAX_TRACE:]
