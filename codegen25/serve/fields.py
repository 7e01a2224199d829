"""The body of a request: JSON from anybody. What is there has the right type or is refused by name; what is not known
is ignored, and `null` is as good as absent."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from codegen25.serve.refusal import Refusal

# Beyond it JSON numbers are no whole numbers in most languages.
LARGEST = 2**53


def parse(body: bytes) -> Fields:
    """Raises `Refusal` for what is no JSON object: NaN, numbers without end and nesting without end are none."""
    try:
        value = json.loads(body or b"{}", parse_constant=_no_constant)
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply; send a plain JSON object") from None
    except ValueError as error:  # also bytes that are not UTF-8, and whole numbers of thousands of digits
        raise Refusal(400, f"the body is not JSON ({' '.join(str(error).split())[:120]}); send an object") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body is JSON but not an object; send an object")
    return Fields(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


class Fields:
    """Reads the members of a JSON object; every method raises `Refusal`, naming the member."""

    def __init__(self, members: Mapping[str, Any], path: str = "") -> None:
        self.members, self._path = members, path

    def __contains__(self, name: str) -> bool:
        return self.members.get(name) is not None

    def refuse(self, name: str, why: str) -> Refusal:
        field = f"{self._path}{name}"
        return Refusal(400, f"{field}: {why}", field=field)

    def text(self, name: str, default: str = "") -> str:
        value = self.members.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.refuse(name, "must be a string")
        return _whole_text(self, name, value)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self.members.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(name, "must be true or false")
        return value

    def whole(self, name: str, default: int, least: int = 0, most: int = LARGEST) -> int:
        """A whole number; 2.0 is one, as some clients write it."""
        value = self.members.get(name)
        if value is None:
            return default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value != int(value):
            raise self.refuse(name, "must be a whole number")
        if not least <= value <= most:
            raise self.refuse(name, f"must be between {least} and {most}")
        return int(value)

    def number(self, name: str, default: float, least: float = -math.inf, most: float = math.inf) -> float:
        value = self.members.get(name)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or abs(value) > LARGEST:
            raise self.refuse(name, "must be a number")
        if not least <= value <= most:
            raise self.refuse(name, f"must be between {least:g} and {most:g}")
        return float(value)

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A list of strings, or one string alone."""
        value = self.members.get(name)
        if value is None:
            return ()
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, Sequence) or not all(isinstance(text, str) for text in found):
            raise self.refuse(name, "must be a string or a list of strings")
        if len(found) > most:
            raise self.refuse(name, f"must be at most {most} strings")
        return tuple(_whole_text(self, name, text) for text in found)

    def stop(self, most: int) -> tuple[str, ...]:
        """Stop strings; empty ones, which would stand everywhere, are left out, as clients send them."""
        return tuple(text for text in self.texts("stop", most) if text)

    def ids(self, name: str) -> tuple[int, ...]:
        value: Any = self.members.get(name)
        if not is_ids(value):
            raise self.refuse(name, "must be a list of token ids")
        return tuple(value)

    def within(self, name: str) -> Fields:
        """The object `name`; an empty one when it is absent."""
        value = self.members.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.refuse(name, "must be an object")
        return Fields(value, f"{self._path}{name}.")

    def objects(self, name: str, most: int = 1000) -> list[Fields]:
        """A list of objects; an empty one when it is absent."""
        value = self.members.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self.refuse(name, "must be a list of objects")
        if len(value) > most:
            raise self.refuse(name, f"must be at most {most} objects")
        return [Fields(one, f"{self._path}{name}[{number}].") for number, one in enumerate(value)]


def is_ids(value: Any) -> bool:
    """Whether it is a list of whole numbers, as token ids are; in range or not."""
    return isinstance(value, list) and all(isinstance(id, int) and not isinstance(id, bool) for id in value)


def _whole_text(fields: Fields, name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise fields.refuse(name, "holds half a character, a lone surrogate; send whole Unicode characters") from None
    return value
