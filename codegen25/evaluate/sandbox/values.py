"""Values as JSON, of builtin types only: what the solution returns is built anew on the side of the test.

An object that equals everything, a list whose `__eq__` lies or a number that counts how often it was asked cannot
cross: a subclass arrives as its builtin base with the base's content, anything else as a `Foreign` that equals nothing
but itself. Numbers arrive exactly; lists, tuples and the other kinds stay apart. Iterators arrive as iterators over
what they gave, views of dicts as views.
"""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from codegen25.evaluate.sandbox.wire import Malformed

# Digits in which an integer is written are bounded by Python; larger ones go as hexadecimal.
PLAIN_BITS = 10_000
# Items that are taken of an iterator. One that gives more arrives as a `Foreign`.
MAX_ITEMS = 1_000_000


class Foreign:
    """Stands for an object that cannot cross. It equals itself and has no other use."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __repr__(self) -> str:
        return f"<{self._kind} of the solution>"


def encode(value: object) -> Any:
    """JSON of a value. Raises RecursionError for what nests too deep or holds itself."""
    if value is None or isinstance(value, str | bool | float):
        return value
    if isinstance(value, int):
        return value if value.bit_length() < PLAIN_BITS else {"t": "int", "v": hex(value)}
    if type(value) is list:
        return [encode(item) for item in value]
    for kind, name, content in _KINDS:
        if isinstance(value, kind):
            return {"t": name, "v": content(value)}
    return _encode_rare(value)


def _items(value: Any) -> list[Any]:
    return [encode(item) for item in value]


def _pairs(value: Any) -> list[Any]:
    return [[encode(key), encode(item)] for key, item in value]


_KINDS: tuple[tuple[type, str, Callable[[Any], Any]], ...] = (
    (list, "list", lambda v: _items(list.__iter__(v))),
    (tuple, "tuple", lambda v: _items(tuple.__iter__(v))),
    (dict, "dict", lambda v: _pairs(dict.items(v))),
    (set, "set", lambda v: _items(set.__iter__(v))),
    (frozenset, "frozenset", lambda v: _items(frozenset.__iter__(v))),
    (bytes, "bytes", lambda v: bytes.hex(v)),
    (bytearray, "bytearray", lambda v: bytearray.hex(v)),
    (complex, "complex", lambda v: [v.real, v.imag]),
    (range, "range", lambda v: [encode(v.start), encode(v.stop), encode(v.step)]),
    (deque, "deque", lambda v: _items(deque.__iter__(v))),
    (type({}.keys()), "keys", _items),
    (type({}.values()), "values", _items),
    (type({}.items()), "items", _pairs),
)


def _encode_rare(value: Any) -> dict[str, Any]:
    # Imported by the solution if there is such a value; looked up so that nobody else pays for the import.
    decimal, fractions = sys.modules.get("decimal"), sys.modules.get("fractions")
    if decimal and isinstance(value, decimal.Decimal):
        return {"t": "decimal", "v": str(value)}
    if fractions and isinstance(value, fractions.Fraction):
        return {"t": "fraction", "v": [encode(value.numerator), encode(value.denominator)]}
    if isinstance(value, Iterator):
        items = list(itertools.islice(value, MAX_ITEMS + 1))
        if len(items) <= MAX_ITEMS:
            return {"t": "iterator", "v": _items(items)}
    return {"t": "object", "v": f"{type(value).__module__}.{type(value).__qualname__}"[:200]}


def decode(data: Any) -> Any:
    """The value of a JSON that anybody may have written. Raises `Malformed`; RecursionError for what nests too deep."""
    if isinstance(data, list):
        return [decode(item) for item in data]
    if not isinstance(data, dict):
        return data
    try:
        return _BUILD[data["t"]](data["v"])
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise Malformed(f"no value: {type(error).__name__}") from error


def _list(content: Any) -> list[Any]:
    if not isinstance(content, list):
        raise TypeError
    return [decode(item) for item in content]


def _dict(content: Any) -> dict[Any, Any]:
    return {decode(key): decode(item) for key, item in content}


def _decimal(content: Any) -> Any:
    from decimal import Decimal

    return Decimal(str(content))


def _fraction(content: Any) -> Any:
    from fractions import Fraction

    return Fraction(*_list(content))


_BUILD: dict[str, Callable[[Any], Any]] = {
    "int": lambda v: int(v, 16),
    "list": _list,
    "tuple": lambda v: tuple(_list(v)),
    "dict": _dict,
    "set": lambda v: set(_list(v)),
    "frozenset": lambda v: frozenset(_list(v)),
    "bytes": bytes.fromhex,
    "bytearray": bytearray.fromhex,
    "complex": lambda v: complex(*_list(v)),
    "range": lambda v: range(*_list(v)),
    "deque": lambda v: deque(_list(v)),
    "keys": lambda v: dict.fromkeys(_list(v)).keys(),
    "values": lambda v: dict(enumerate(_list(v))).values(),
    "items": lambda v: _dict(v).items(),
    "decimal": _decimal,
    "fraction": _fraction,
    "iterator": lambda v: iter(_list(v)),
    "object": lambda v: Foreign(str(v)[:200]),
}
