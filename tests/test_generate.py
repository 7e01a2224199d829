"""Protocols: what a model is asked, that batches and interrupts change nothing, and what is shared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from publisher_folder import write_publisher_folder

from codegen25.complete import Completion, Model, load
from codegen25.engine.sampling import Sampling
from codegen25.errors import CodegenError
from codegen25.evaluate import runs
from codegen25.evaluate.generate import ANCHORED, COMPLETION, LEFT_TO_RIGHT, PLAIN, Asking, generate, rules
from codegen25.evaluate.infilling import infilling_set
from codegen25.evaluate.samples import Sample, SampleFile
from codegen25.evaluate.tasks import FUNCTION_STOPS, Task, TaskSet

GREEDY, DRAWN = Asking(6, Sampling(), batch=4), Asking(6, Sampling(temperature=1.0, seed=3), n=3, batch=4)
TASK = Task("SingleLineInfilling/T/0/L1", "add", "def add(a, b):\n", "", "    return a + b\n", "")


class Scripted:
    """Answers by a function of the prompt; remembers what it was asked."""

    def __init__(self, answer: Callable[[str], str]) -> None:
        self.answer, self.asked = answer, list[tuple[Any, dict[str, Any]]]()

    def complete_batch(self, prompts: Sequence[str], **options: Any) -> list[Completion]:
        self.asked += [(prompt, options) for prompt in prompts]
        cut = [
            self.answer(prompt).split("\n")[0] if "\n" in options["stop"] else self.answer(prompt) for prompt in prompts
        ]
        return [Completion(text, "stop", (), (), 0) for text in cut]

    def infill_batch(self, pairs: Sequence[tuple[str, str]], **options: Any) -> list[Completion]:
        self.asked += [(pair, options) for pair in pairs]
        return [Completion(self.answer(prefix), "length", (), (), 0) for prefix, _ in pairs]


def _ask(engine: Any, protocol: str, tasks: TaskSet, asking: Asking, path: Path) -> list[Sample]:
    return generate(engine, protocol, tasks, asking, SampleFile(path, print), lambda *_: None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("generate") / "model"
    write_publisher_folder(path, bins=False)
    return load(str(path))


@pytest.mark.parametrize("protocol", [COMPLETION, LEFT_TO_RIGHT, PLAIN, ANCHORED])
@pytest.mark.parametrize("asking", [GREEDY, DRAWN])
def test_batches_and_interrupts_change_nothing(model: Model, protocol: str, asking: Asking, tmp_path: Path) -> None:
    tasks = infilling_set("single-line").subset(7, 0)
    alone = _ask(model, protocol, tasks, replace(asking, batch=1), tmp_path / "alone.jsonl")
    assert len(alone) == 7 * asking.n and len({sample.text for sample in alone}) > 1
    path = tmp_path / "samples.jsonl"
    assert _ask(model, protocol, tasks, asking, path) == alone
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 5])  # inside a line, and inside the samples of a task
    engine = Scripted(lambda prompt: pytest.fail("asked again"))
    assert _ask(model, protocol, tasks, asking, path) == alone
    assert sorted(path.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert _ask(engine, protocol, tasks, asking, path) == alone, "nothing is missing, nothing is asked"


def test_more_samples_and_tasks_go_on_from_fewer(model: Model, tmp_path: Path) -> None:
    small, large = (infilling_set("single-line").subset(count, 0) for count in (2, 4))
    few = _ask(model, PLAIN, small, replace(DRAWN, n=2), tmp_path / "s.jsonl")
    many = _ask(model, PLAIN, large, DRAWN, tmp_path / "s.jsonl")
    assert set(few) <= set(many) and len(many) == 12
    assert many == _ask(model, PLAIN, large, DRAWN, tmp_path / "t.jsonl")


def test_what_is_asked(tmp_path: Path) -> None:
    tasks = TaskSet("t", (replace(TASK, task_id="HumanEval/0"),))
    asked: list[tuple[str, Any, dict[str, Any]]] = [
        (COMPLETION, TASK.prompt, {"stop": FUNCTION_STOPS}),
        (LEFT_TO_RIGHT, TASK.prompt, {"stop": FUNCTION_STOPS}),
        (PLAIN, (TASK.prompt, ""), {"anchor": 0}),
        (ANCHORED, (TASK.prompt, ""), {"anchor": 8}),
    ]
    for protocol, question, options in asked:
        engine = Scripted(lambda prompt: "x")
        _ask(engine, protocol, tasks, GREEDY, tmp_path / f"{protocol}.jsonl")
        assert engine.asked == [(question, {"max_tokens": 6, "sampling": Sampling(), **options})]


def test_holes_that_begin_at_one_place_share_their_left_to_right_samples(tmp_path: Path) -> None:
    tasks = TaskSet("multi-line", infilling_set("multi-line").tasks[:35])  # of HumanEval/0, with 7 beginnings
    engine = Scripted(lambda prompt: f"{len(prompt)}")
    samples = _ask(engine, LEFT_TO_RIGHT, tasks, replace(DRAWN, batch=200), tmp_path / "s.jsonl")
    prompts = {task.prompt for task in tasks.tasks}
    assert len(engine.asked) == 3 * len(prompts) < len(samples) == 3 * 35
    assert all(sample.text == f"{len(tasks.by_id[sample.task_id].prompt)}" for sample in samples)


def test_one_line_left_to_right_goes_on_behind_blank_lines(tmp_path: Path) -> None:
    document = TASK.prompt + "\n\n    return 3\n"
    tasks = TaskSet("single-line", (TASK,))
    engine = Scripted(lambda prompt: document[len(prompt) :])
    assert _ask(engine, LEFT_TO_RIGHT, tasks, GREEDY, tmp_path / "s.jsonl")[0].text == "\n\n    return 3"
    blank = _ask(Scripted(lambda prompt: "\n"), LEFT_TO_RIGHT, tasks, GREEDY, tmp_path / "t.jsonl")
    assert blank[0].text.strip() == ""


def test_every_score_of_a_hole_has_its_baseline() -> None:
    for name in ("single-line", "multi-line", "random-span"):
        tasks = infilling_set(name).subset(3, 0)
        ended = set(rules(PLAIN, tasks))
        assert ended == set(rules(ANCHORED, tasks))
        # A left-to-right answer of one line ends there: nothing else would end it.
        assert set(rules(LEFT_TO_RIGHT, tasks)) == (ended - {"end"} if name == "single-line" else ended)


def test_a_folder_is_of_one_run(tmp_path: Path) -> None:
    runs.claim(tmp_path / "a" / "b", {"model": "m", "anchor_lines": 8})
    runs.claim(tmp_path / "a" / "b", {"model": "m", "anchor_lines": 8})
    with pytest.raises(CodegenError, match=r"asked for otherwise \(anchor_lines, model, n\)"):
        runs.claim(tmp_path / "a" / "b", {"model": "x", "anchor_lines": None, "n": 1})
    (tmp_path / runs.RUN).write_text("[")
    with pytest.raises(CodegenError, match="not the record of a run"):
        runs.claim(tmp_path, {})


def test_weights_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = runs.weights(tmp_path)
    (tmp_path / "README.md").write_text("# A card\n")
    assert runs.weights(tmp_path) == first
    assert runs.weights(tmp_path / "model.safetensors") == first, "as for a GGUF file"
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert runs.weights(tmp_path) != first
