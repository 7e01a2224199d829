"""Small projects to build a corpus from: what is kept, what is dropped, and why, are known."""

from __future__ import annotations

import random
from pathlib import Path

MIT = """MIT License

Copyright (c) 2020 Example

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""
VERBS = ("read", "write", "count", "merge", "split", "sort", "find", "drop", "keep", "join", "walk", "open", "close")
NOUNS = ("line", "word", "token", "table", "row", "path", "file", "node", "edge", "tree", "page", "block", "record")


def program(seed: int, functions: int = 8) -> str:
    """A Python file unlike that of any other seed."""
    draw = random.Random(seed)
    lines = [f'"""Things that are done to the {draw.choice(NOUNS)} {seed}."""']
    for number in range(functions):
        verb, noun, other = draw.choice(VERBS), draw.choice(NOUNS), draw.choice(NOUNS)
        lines += [
            "", "", f"def {verb}_{noun}_{number}({other}: int, limit: int = {draw.randrange(1000)}) -> list[int]:",
            f'    """{verb.title()} each {noun} until {draw.choice(NOUNS)} {draw.randrange(10**6)} is met."""',
            f"    found = [{other} * {draw.randrange(50)} + step for step in range(limit)]",
            f"    least = sum(found) - {draw.randrange(10**6)}",
            f"    return [{noun} for {noun} in found if {noun} % {draw.randrange(2, 99)} > least]",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def project(folder: Path, files: dict[str, str], license: str | None = MIT) -> Path:
    """A folder with these files, and a licence unless there is to be none."""
    for name, text in files.items() if license is None else [("LICENSE", license), *files.items()]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="")
    return folder
