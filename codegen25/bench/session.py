"""Recorded editing sessions: what an author does in an editor, key by key, with the times between.

A session is a file of JSON lines, one `Event` each: `{"t_ms": 1520, "action": "type", "at": 311, "inserted": "x",
"ask": true}`. `deleted` (a number of characters), `inserted` and `ask` may be absent. `generate` makes one from real
files: stretches of them are missing and are typed again, in visits, with slips, deletions and accepted suggestions,
and lines that do not belong are deleted. After the last event every file is as it was.
"""

from __future__ import annotations

import json
import math
import random
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from codegen25.errors import CodegenError, UsageError
from codegen25.files import read_source

Action = Literal["open", "type", "delete", "accept", "move"]
# In characters: files of a size that people work in.
SMALLEST, LARGEST = 6_000, 60_000


@dataclass(frozen=True)
class Event:
    """At `t_ms`, `deleted` characters from `at` on were replaced by `inserted`, and the cursor stands behind these.

    `open` takes up another file, whose text is `inserted`, with the cursor at `at`. `move` changes no text. `accept`
    puts in what an editor might have suggested. `ask`: the editor wants a suggestion now.
    """

    t_ms: int
    action: Action
    at: int
    deleted: int = 0
    inserted: str = ""
    ask: bool = False

    def to_json(self) -> str:
        fields = asdict(self)
        required = {name: fields[name] for name in ("t_ms", "action", "at")}
        return json.dumps(required | {name: value for name, value in fields.items() if value}, ensure_ascii=False)


@dataclass(frozen=True)
class Moment:
    """An event, and the text around the cursor after it."""

    event: Event
    prefix: str
    suffix: str


def replay(events: Sequence[Event]) -> Iterator[Moment]:
    """The moments of a session. Raises `CodegenError` for an event that its text has no place for, or out of order."""
    text, now = "", 0
    for number, event in enumerate(events, 1):
        size = len(event.inserted if event.action == "open" else text)
        if number == 1 and event.action != "open":
            raise CodegenError(f"event 1 of the session is {event.action!r}; a session begins with 'open'")
        if min(event.at, event.deleted) < 0 or event.at + event.deleted > size or event.t_ms < now:
            raise CodegenError(
                f"event {number} of the session ({event.action} at {event.at}, {event.t_ms} ms) is outside its text of "
                f"{size} characters or before the last event; record the session again"
            )
        if event.action == "open":
            text, cursor = event.inserted, event.at
        else:
            text = text[: event.at] + event.inserted + text[event.at + event.deleted :]
            cursor = event.at + len(event.inserted)
        now = event.t_ms
        yield Moment(event, text[:cursor], text[cursor:])


def save(events: Sequence[Event], path: Path) -> None:
    """Write a session, aside and then renamed."""
    aside = path.with_name(path.name + ".partial")
    aside.write_text("".join(event.to_json() + "\n" for event in events), encoding="utf-8")
    aside.replace(path)


def load(path: Path) -> list[Event]:
    """Read a session. Raises `CodegenError` for a file that is none; its events fit together."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise CodegenError(f"{path}: cannot be read ({why}); name a recorded session") from None
    events = [_event(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not events:
        raise CodegenError(f"{path}: empty; name a recorded session")
    for _ in replay(events):
        pass
    return events


def _event(path: Path, number: int, line: str) -> Event:
    kinds: Mapping[str, type] = {"t_ms": int, "action": str, "at": int, "deleted": int, "inserted": str, "ask": bool}
    try:
        fields: Any = json.loads(line)
        if all(type(value) is kinds[name] for name, value in fields.items()) and fields["action"] in get_args(Action):
            return Event(**fields)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass  # said below, as for fields of other types
    raise CodegenError(f"{path}:{number}: not an event of a session ({line[:60]!r}); record the session again")


# ------------------------------------------------------------------------------------------------------ making sessions


def library_files(count: int, seed: int) -> list[Path]:
    """Files of the running Python's standard library, another choice for every seed."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted(folder.glob("*.py")) if SMALLEST <= file.stat().st_size <= LARGEST]
    if not 0 < count <= len(files):
        raise UsageError(f"{count} files asked for; the standard library has {len(files)} of a fitting size")
    return random.Random(seed).sample(files, count)


def generate(files: Sequence[Path], seed: int, places: int = 4) -> list[Event]:
    """A session that works on each file in turn, at up to `places` places in it. Raises `CodegenError` for no text."""
    rng = random.Random(seed)
    events: list[Event] = []
    for file in files:
        author = _Author(rng, events, read_source(file).text, places)
        author.work()
    return events


@dataclass
class _Task:
    """At `at`, `typed` is still missing or `stray` characters in front of it are to go."""

    at: int
    typed: str = ""
    stray: int = 0


class _Author:
    """Does to a text what makes it `final` again. All that is chosen comes from `rng`."""

    def __init__(self, rng: random.Random, events: list[Event], final: str, places: int) -> None:
        self.rng, self.events = rng, events
        self.now = float(events[-1].t_ms) if events else 0.0
        self.text, self.tasks = _damaged(rng, final, places)

    def work(self) -> None:
        self._event("open", 0, inserted=self.text)
        while self.tasks:
            task = self.rng.choice(self.tasks)
            self._pause(2000, 0.5)
            self._event("move", task.at)
            self._pause(700, 0.4)
            if task.stray:
                self._remove(task)
            else:
                self._type_lines(task)
            if not task.typed and not task.stray:
                self.tasks.remove(task)

    def _pause(self, median_ms: float, spread: float) -> None:
        """Log-normal, as the times between keys are."""
        self.now += min(4 * median_ms, median_ms * math.exp(self.rng.gauss(0, spread)))

    def _event(self, action: Action, at: int, deleted: int = 0, inserted: str = "") -> None:
        ask = action in ("type", "delete", "accept")
        self.events.append(Event(round(self.now), action, at, deleted, inserted, ask))
        if ask:
            self.text = self.text[:at] + inserted + self.text[at + deleted :]
            for task in self.tasks:
                task.at += (len(inserted) - deleted) * (task.at >= at + deleted)

    def _key(self, task: _Task, inserted: str) -> None:
        if self.rng.random() < 0.04:
            self._pause(1200, 0.6)
        self._pause(180, 0.3)
        self._event("type", task.at, inserted=inserted)

    def _backspace(self, task: _Task, count: int = 1) -> None:
        self._pause(130, 0.2)
        self._event("delete", task.at - count, deleted=count)

    def _remove(self, task: _Task) -> None:
        """Some characters one by one, and the rest at once, as with a selection or a deleted word."""
        for _ in range(min(task.stray, self.rng.randrange(2, 8))):
            self._backspace(task)
            task.stray -= 1
        if task.stray:
            self._backspace(task, task.stray)
            task.stray = 0

    def _type_lines(self, task: _Task) -> None:
        """Type until the task is done, or until a thought leads elsewhere at the end of a line."""
        while task.typed:
            line = task.typed.removeprefix("\n")
            indent = len(line) - len(line.lstrip(" \t")) + len(task.typed) - len(line)
            self._key(task, task.typed[:indent])  # Enter, and the blanks that an editor puts in with it
            rest, newline, more = task.typed[indent:].partition("\n")
            self._type_rest_of_line(task, rest)
            task.typed = newline + more
            if len(self.tasks) > 1 and self.rng.random() < 0.2:
                return

    def _type_rest_of_line(self, task: _Task, line: str) -> None:
        for number, character in enumerate(line):
            chance = self.rng.random()
            if chance < 0.02 and len(line) - number > 3:
                self._pause(400, 0.3)
                self._event("accept", task.at, inserted=line[number:])
                return
            if chance > 0.98:
                slip = "".join(self.rng.choices("aeionrst(_. ", k=self.rng.randrange(1, 4)))
                for wrong in slip:
                    self._key(task, wrong)
                for _ in slip:
                    self._backspace(task)
            self._key(task, character)


def _damaged(rng: random.Random, final: str, places: int) -> tuple[str, list[_Task]]:
    """A text in which stretches of lines are missing or too many, and what is to be done about each."""
    lines = final.split("\n")
    starts = [number for number, line in enumerate(lines) if number and 10 < len(line) < 100 and line[0] == " "]
    if not starts or places < 1:
        raise CodegenError("no session can be made: a file has no indented line of usual length, or places is below 1")
    taken: set[int] = set()
    stretches: list[tuple[int, int]] = []
    for start in rng.sample(starts, len(starts)):
        end = start + rng.randrange(1, 5)
        around = set(range(start - 1, end + 1))  # a line stays between two of them
        if len(stretches) < places and end <= len(lines) and not around & taken:
            taken |= around
            stretches.append((start, end))
    rows = [lines[0], *("\n" + line for line in lines[1:])]
    text, tasks, done = "", [], 0
    for start, end in sorted(stretches):
        text += "".join(rows[done:start])
        if rng.random() < 0.2:
            stray = rows[rng.choice(starts)]
            text += stray
            tasks.append(_Task(len(text), stray=len(stray)))
            done = start
        else:
            tasks.append(_Task(len(text), typed="".join(rows[start:end])))
            done = end
    return text + "".join(rows[done:]), tasks
