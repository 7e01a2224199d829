"""Asking a model for samples, by protocols that are fixed here. Judging is apart (`judging.py`).

    completion      the prompt, up to a string that ends a function
    left-to-right   the text before a hole, as a prompt; ends with its first line that is not blank where every hole
                    is one line, else as a completion does: the baseline of the two that follow
    plain           the hole stands at the cursor; ends where the model closes it
    anchored        the hole stands some lines before the cursor, which are handed back as the beginning of the span
    chosen          the best of several answers by `choose.py`, which knows where it ends, and Python's rules
    served          a server is given the text on both sides, and asks its model as it likes

The same functions ask our engine and other people's servers (`endpoint.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from codegen25.choose import infill_chosen
from codegen25.complete import ANCHOR_LINES, Completion, Model
from codegen25.engine.sampling import Sampling
from codegen25.errors import UsageError
from codegen25.evaluate.endings import Rule
from codegen25.evaluate.samples import Sample, SampleFile
from codegen25.evaluate.tasks import Task, TaskSet

COMPLETION, LEFT_TO_RIGHT, PLAIN, ANCHORED = "completion", "left-to-right", "plain", "anchored"
CHOSEN, SERVED = "chosen", "served"
# Blank lines that a left-to-right answer of one line may begin with.
MAX_BLANK_LINES = 3

Question = tuple[str, str]  # what stands before the hole, and behind it
Progress = Callable[[str, int, int], None]  # what is done, how much of it, of how much


class Engine(Protocol):
    """What is asked: a `Model`, or an `Endpoint`. Equal texts in one call are samples of one."""

    def complete_batch(
        self, prompts: Sequence[str], *, max_tokens: int, sampling: Sampling, stop: Sequence[str]
    ) -> list[Completion]: ...

    def infill_batch(
        self, pairs: Sequence[Question], *, anchor: int | None, max_tokens: int, sampling: Sampling
    ) -> list[Completion]: ...


@dataclass(frozen=True)
class Asking:
    """How a model is asked. `batch` questions go side by side, which changes the time and nothing else.

    `anchor_lines` None hands all lines back. `n` samples come of each task. Of `choose` answers one is chosen.
    """

    max_tokens: int
    sampling: Sampling
    n: int = 1
    anchor_lines: int | None = ANCHOR_LINES
    batch: int = 32
    choose: int = 16


def is_single_line(tasks: TaskSet) -> bool:
    return all(task.task_id.startswith("SingleLineInfilling/") for task in tasks.tasks)


def rules(protocol: str, tasks: TaskSet) -> tuple[Rule, ...]:
    """Where the samples of a protocol are cut before they are judged, each a score of its own."""
    if protocol == COMPLETION:
        return ("end",)
    if protocol == CHOSEN:
        return ("end",)
    if not is_single_line(tasks):
        return ("end", "suffix")
    return ("line",) if protocol == LEFT_TO_RIGHT else ("end", "line")


def generate(
    engine: Engine, protocol: str, tasks: TaskSet, asking: Asking, file: SampleFile, progress: Progress
) -> list[Sample]:
    """`asking.n` samples of every task, by task; those that the file lacks are made and appended to it."""
    counts = file.counts()
    missing = [task for task in tasks.tasks if counts[task.task_id] < asking.n]
    done, step = len(tasks.tasks) - len(missing), max(1, asking.batch // asking.n)
    for start in range(0, len(missing), step):
        progress(protocol, done + start, len(tasks.tasks))
        some = missing[start : start + step]
        found = _answers(engine, protocol, tasks, some, asking)
        # Of a task that has some of its samples already the last are new: the same seeds give the same first ones.
        file.append([sample for task in some for sample in found[task.task_id][counts[task.task_id] :]])
    progress(protocol, len(tasks.tasks), len(tasks.tasks))
    return list(file.of(tasks, asking.n))


def _answers(
    engine: Engine, protocol: str, tasks: TaskSet, some: Sequence[Task], asking: Asking
) -> dict[str, list[Sample]]:
    """Samples by task. Tasks that ask the same share their samples, as holes that begin at one place do."""
    is_infill = protocol in (PLAIN, ANCHORED, CHOSEN, SERVED)
    questions = {task.task_id: (task.prompt, task.suffix if is_infill else "") for task in some}
    distinct = list(dict.fromkeys(questions.values()))
    asked = [question for question in distinct for _ in range(asking.n)]
    if protocol == CHOSEN:
        completions = [_chosen(engine, *question, asking) for question in asked]
    elif is_infill:
        anchor = asking.anchor_lines if protocol == ANCHORED else 0
        completions = engine.infill_batch(asked, anchor=anchor, max_tokens=asking.max_tokens, sampling=asking.sampling)
    elif protocol == LEFT_TO_RIGHT and is_single_line(tasks):
        completions = _lines(engine, [prompt for prompt, _ in asked], asking)
    else:
        completions = engine.complete_batch(
            [prompt for prompt, _ in asked], max_tokens=asking.max_tokens, sampling=asking.sampling, stop=tasks.stops
        )
    place = {question: number * asking.n for number, question in enumerate(distinct)}
    return {
        name: [
            Sample(name, completion.text, completion.finish_reason)
            for completion in completions[place[question] : place[question] + asking.n]
        ]
        for name, question in questions.items()
    }


def _chosen(engine: Engine, prefix: str, suffix: str, asking: Asking) -> Completion:
    if not isinstance(engine, Model):
        raise UsageError(f"{CHOSEN}: asks how likely texts are, which endpoints do not tell; name a --model")
    return infill_chosen(
        engine, prefix, suffix, asking.choose, anchor=asking.anchor_lines, python=True,
        max_tokens=asking.max_tokens, sampling=asking.sampling,
    )  # fmt: skip


def _lines(engine: Engine, prompts: Sequence[str], asking: Asking) -> list[Completion]:
    """One line each. A stop string ends at any line feed, so what came out blank is continued behind it."""
    done: dict[int, Completion] = {}
    waiting, blank = list(range(len(prompts))), ""
    while waiting:
        completions = engine.complete_batch(
            [prompts[i] + blank for i in waiting], max_tokens=asking.max_tokens, sampling=asking.sampling, stop=("\n",)
        )
        again = []
        for i, completion in zip(waiting, completions, strict=True):
            if completion.finish_reason == "stop" and not completion.text.strip() and len(blank) < MAX_BLANK_LINES:
                again.append(i)
            done[i] = Completion(blank + completion.text, completion.finish_reason, (), (), completion.prompt_tokens)
        waiting = again
        blank += "\n"
    return [done[i] for i in range(len(prompts))]
