"""Tasks against a hash of the official file, verdicts on programs that behave and that do not, the gate end to end."""

from __future__ import annotations

import json
import random
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from publisher_folder import write_publisher_folder

from codegen25.complete import Completion, Model, load
from codegen25.engine.torch import TorchBackend
from codegen25.errors import CodegenError, UsageError
from codegen25.evaluate import gate, likelihood
from codegen25.evaluate.__main__ import main
from codegen25.evaluate.gate import Sample
from codegen25.evaluate.judge import Limits
from codegen25.evaluate.singleline import Task, derive, fingerprint, single_line_tasks
from codegen25.tokenizer import family

TASK = Task("T/0/L1", "add", "def add(a, b):\n", "", "    return a + b\n", "def check(f):\n    assert f(1, 2) == 3\n")
SHORT = Limits(seconds=2)

# --------------------------------------------------------------------------------------------------------------- tasks


def test_the_tasks_are_those_of_the_official_file() -> None:
    tasks = single_line_tasks()
    assert len(tasks) == 1033
    assert fingerprint(tasks) == "2681fe95d3f083f7a8dd664365f93ac3a388dedf54b5ce42bc697f7839ec06a9"


def test_derivation_by_hand() -> None:
    problem = {
        "prompt": "def f():\n",
        "canonical_solution": "    x = 1\n\n    return x",
        "entry_point": "f",
        "test": "t",
    }
    first, last = derive({"HumanEval/7": problem})
    assert first == Task(
        "SingleLineInfilling/HumanEval/7/L0", "f", "def f():\n\n", "\n    return x", "    x = 1\n", "t"
    )
    assert (last.task_id, last.prompt) == ("SingleLineInfilling/HumanEval/7/L2", "def f():\n    x = 1\n\n")
    assert (last.canonical_solution, last.suffix) == ("    return x\n", "")


def test_subsets_of_a_seed_are_nested() -> None:
    tasks = single_line_tasks()
    small, large = gate.subset(tasks, 20, 0), gate.subset(tasks, 50, 0)
    assert set(small) < set(large) and len(small) == 20
    assert large == sorted(large, key=tasks.index)
    assert small != gate.subset(tasks, 20, 1)
    with pytest.raises(UsageError, match="--tasks is 2000"):
        gate.subset(tasks, 2000, 0)


# ------------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("    x = 1\n    y", "    x = 1\n"),
        ("\n\n    x\ny", "\n\n    x\n"),
        ("x", "x\n"),
        ("", "\n"),
        ("\n", "\n"),
        ("x\n\n", "x\n"),
    ],
)
def test_first_line(text: str, line: str) -> None:
    assert gate.first_line(text) == line


@given(st.text(alphabet="ab \n\t"))
def test_the_first_line_of_a_first_line_is_itself(text: str) -> None:
    assert gate.first_line(gate.first_line(text)) == gate.first_line(text)


def _echo(calls: list[str]) -> gate.Generate:
    def generate(tasks: list[Task]) -> list[Sample]:
        calls.extend(task.task_id for task in tasks)
        return [Sample(task.task_id, task.canonical_solution, "p", "stop") for task in tasks]

    return generate


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    tasks, path = single_line_tasks()[:5], tmp_path / "out" / "samples.jsonl"
    calls: list[str] = []
    whole = gate.generate_all(tasks, {"p": _echo(calls)}, path, run="r", batch=2)
    complete = path.read_bytes()
    path.write_bytes(complete[: len(complete) * 2 // 3])  # inside a line
    again: list[str] = []
    assert gate.generate_all(tasks, {"p": _echo(again)}, path, run="r", batch=2) == whole
    assert path.read_bytes() == complete
    assert len(calls) == 5 and again == calls[-len(again) :] and 0 < len(again) < 5


def test_samples_of_another_run_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    gate.generate_all([TASK], {"p": _echo([])}, path, run="old")
    with pytest.raises(CodegenError, match="other weights or settings"):
        gate.generate_all([TASK], {"p": _echo([])}, path, run="new")
    path.write_text('{"task_id": 1}\n')
    with pytest.raises(CodegenError, match="not a sample"):
        gate.read_samples(path)


def _scripted(answer: Callable[[str], str]) -> Model:
    """A model whose `complete_batch` answers a prompt by a function, up to the stop string."""

    def complete_batch(prompts: Sequence[str], **options: Any) -> list[Completion]:
        assert options["stop"] == ("\n",)
        return [Completion(answer(prompt).split("\n")[0], "stop", (), (), 0) for prompt in prompts]

    return cast(Model, types.SimpleNamespace(complete_batch=complete_batch))


def test_left_to_right_goes_on_behind_blank_lines() -> None:
    document = TASK.prompt + "\n\n    return 3\n"
    generate = gate.generators(_scripted(lambda prompt: document[len(prompt) :]), anchor_lines=8, max_tokens=64)
    assert generate[gate.LEFT_TO_RIGHT]([TASK]) == [Sample(TASK.task_id, "\n\n    return 3", "left-to-right", "stop")]


def test_left_to_right_gives_up_on_nothing_but_blank_lines() -> None:
    generate = gate.generators(_scripted(lambda prompt: "\n"), anchor_lines=8, max_tokens=64)
    assert generate[gate.LEFT_TO_RIGHT]([TASK])[0].completion.strip() == ""


def test_scores_by_hand() -> None:
    other = replace(TASK, task_id="T/1/L1")
    samples = {
        gate.LEFT_TO_RIGHT: [Sample("T/0/L1", "    return a + b", "left-to-right", "stop")] * 2,
        gate.ANCHORED: [
            Sample("T/0/L1", "    return a + b\n    oops oops", "anchored", "length"),
            Sample("T/1/L1", "    return b + a\n", "anchored", "stop"),
        ],
    }
    out = gate.scores([TASK, other], samples, run_code=True, limits=SHORT)
    assert out["left-to-right"]["ended_by_eom"] is None
    assert out["left-to-right"]["line"]["pass@1"] == out["left-to-right"]["line"]["exact"] == 1
    assert out["anchored"]["ended_by_eom"] == 0.5
    assert (out["anchored"]["eom"]["pass@1"], out["anchored"]["eom"]["exact"]) == (0.5, 0)
    assert (out["anchored"]["line"]["pass@1"], out["anchored"]["line"]["exact"]) == (1, 0.5)
    assert out["anchored"]["eom"]["verdicts"] == {"T/0/L1": "error", "T/1/L1": "passed"}


# ---------------------------------------------------------------------------------------------------------- likelihood


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluate") / "model"
    write_publisher_folder(path, bins=False)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(str(folder), dtype="float32")


@pytest.mark.parametrize("first", [1, 4, 5, 6, 11, 12])
def test_nats_are_those_of_the_model(model: Model, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = model.tokenizer.encode("def f(x):\n    return x + 1\n\nprint(f(2))")[:12]
    assert len(ids) == 12
    with torch.no_grad():
        logprobs = torch.log_softmax(cast(TorchBackend, model.backend).model(torch.tensor([ids]))[0], -1)
    expected = [-logprobs[i - 1, ids[i]].item() for i in range(first, 12)]
    monkeypatch.setattr(likelihood, "CHUNK", 5)
    assert likelihood.token_nats(model.backend, ids, first) == pytest.approx(expected, abs=1e-4)


def test_spans_are_cut_at_lines_and_fit() -> None:
    text = "import os\n\n" + "".join(f"def f{i}():\n    return {i}\n\n" for i in range(50))
    for seed in range(50):
        span = likelihood.draw_span(family(), text, True, random.Random(seed), 200)
        assert span is not None and not span.whole
        assert text.startswith(span.before + span.span + span.after)
        assert span.before.endswith("\n") and span.span.endswith("\n") and span.span.splitlines()[0].strip()
        assert len(family().encode(span.before + span.span + span.after)) <= 200
    assert likelihood.draw_span(family(), "one line\n\n", True, random.Random(0), 200) is None


def test_the_forms_of_a_span_see_what_they_should(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int]] = []

    def spy(backend: object, ids: Sequence[int], first: int) -> list[float]:
        asked.append((model.tokenizer.decode(ids), len(ids) - first))
        return [1.0] * (len(ids) - first)

    monkeypatch.setattr(likelihood, "token_nats", spy)
    span = likelihood.Span("a = 1\nb = 2\n", "    c = 3\n", "d = 4\n", True)
    nats = likelihood.span_nats(model.backend, model.tokenizer, [span], anchor_lines=1)
    plain, anchored, left_to_right = asked
    assert plain[0] == "a = 1\nb = 2\n<mask_1>d = 4\n<|endoftext|><sep><mask_1>    c = 3\n<eom>"
    assert anchored[0] == "a = 1\n<mask_1>d = 4\n<|endoftext|><sep><mask_1>b = 2\n    c = 3\n"
    assert left_to_right[0] == "a = 1\nb = 2\n    c = 3\n"
    assert plain[1] == len(model.tokenizer.encode("    c = 3\n")) + 1
    assert anchored[1] == left_to_right[1]
    assert nats == likelihood.SpanNats(1, 1, 1, 1, 1)


# ---------------------------------------------------------------------------------------------------------- end to end


def _heldout(path: Path) -> Path:
    evidence = {"kind": "file", "file": "LICENSE", "text": "MIT License", "confidence": 1.0}
    fields = {"source": "s", "version": "1", "path": "p", "license": "MIT", "evidence": evidence, "language": "python"}
    texts = ["def f():\n    return 1\n" * 40, "x = 1\ny = 2\n", "import os\n\nprint(os.name)\n"]
    path.write_text("".join(json.dumps({"id": str(i), "content": t, **fields}) + "\n" for i, t in enumerate(texts)))
    return path


def test_the_gate_end_to_end(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gate.json"
    options = ["--tasks", "3", "--max-tokens", "6", "--heldout", str(_heldout(tmp_path / "h.jsonl")), "--window", "64"]
    main(["gate", "--model", str(folder), "--out", str(out), *options, "--run-generated-code", "--timeout", "5"])
    report, printed = json.loads(out.read_text()), capsys.readouterr()
    assert "WITHOUT A SANDBOX" in printed.err
    header, _, row = printed.out.splitlines()
    assert header.count("|") == row.count("|")
    assert report["tasks"] == 3 and len(report["weights"]) == 64
    for protocol in ("left-to-right", "infill", "anchored"):
        assert len(report["protocols"][protocol]["line"]["verdicts"]) == 3
        assert 0 <= report["protocols"][protocol]["line"]["pass@1"] <= 1
    # Random weights know nothing: about log2 of the vocabulary per token, of a few bytes.
    assert 2 < report["likelihood"]["bits_per_byte"] < 40
    samples = tmp_path / "gate.samples.jsonl"
    made = samples.read_bytes()
    assert len(made.splitlines()) == 9
    main(["gate", "--model", str(folder), "--out", str(out), *options])
    assert samples.read_bytes() == made  # nothing is made again


def test_without_the_flag_no_program_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a program was judged")

    monkeypatch.setattr(gate, "judge", refuse)
    main(["gate", "--model", str(folder), "--out", str(tmp_path / "g.json"), "--tasks", "1", "--max-tokens", "2"])
    report = json.loads((tmp_path / "g.json").read_text())
    assert report["protocols"]["infill"]["eom"]["pass@1"] is None
    assert report["likelihood"] is None


def test_bad_input_is_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    model, out = ["--model", str(folder)], ["--out", str(tmp_path / "g.json")]
    small = ["--tasks", "1", "--max-tokens", "1"]
    for arguments, code, message in [
        ([*model, "--out", "g.txt"], 2, "must end in .json"),
        ([*model, *out, "--tasks", "0"], 2, "--tasks is 0"),
        (["--model", str(tmp_path / "none"), *out], 1, "no such folder"),
        ([*model, *out, *small, "--heldout", str(tmp_path / "empty.jsonl")], 1, "holds no text"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main(["gate", *arguments])
        assert stopped.value.code == code
        assert message in capsys.readouterr().err.splitlines()[-1]


def test_samples_are_told_apart_by_weights_and_settings(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = gate.run_id(tmp_path, {"max_tokens": 1})
    assert gate.run_id(tmp_path, {"max_tokens": 1}) == first
    assert gate.run_id(tmp_path, {"max_tokens": 2})[0] != first[0]
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert gate.run_id(tmp_path, {"max_tokens": 1})[1] != first[1]
    one_file = gate.run_id(tmp_path / "model.safetensors", {"max_tokens": 1})
    assert one_file == gate.run_id(tmp_path, {"max_tokens": 1}), "as for a GGUF file"
