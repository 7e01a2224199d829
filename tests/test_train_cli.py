"""`codegen25 train`, from a file of texts to a folder that every other command loads; what a person can do wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import small_corpus
import tiny
import torch
from safetensors.torch import load_file
from training import one_thread

from codegen25.cli import main
from codegen25.complete import load
from codegen25.config import read_config
from codegen25.data.alone import alone
from codegen25.model.checkpoint import load_llama, save_llama
from codegen25.tokenizer import from_folder
from codegen25.train.guard import LOSS_MARGIN, PATIENCE, SEEN, Guard
from codegen25.train.probe import training_flops
from codegen25.train.record import BUSY

__all__ = ["one_thread"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model to start from and texts to learn."""
    save_llama(tiny.model(), tmp_path / "start")
    tiny.write_tokenizer(tmp_path / "start")
    lines = [json.dumps({"content": text, "language": "python"}) + "\n" for text in tiny.documents()]
    (tmp_path / "texts.jsonl").write_text("".join(lines))
    pairs = [json.dumps({"prompt": f"add {n}", "response": f"x + {n}\n"}) + "\n" for n in range(9)]
    (tmp_path / "pairs.jsonl").write_text("".join(pairs))
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = {"--data": "texts.jsonl", "--init": "start", "--out": "run", "--steps": "3", "--window": "128",
        "--documents-per-step": "4", "--dtype": "float32"}  # fmt: skip


def arguments(*flags: str, **options: str | None) -> list[str]:
    chosen = BASE | {f"--{name.replace('_', '-')}": value for name, value in options.items()}
    return ["train", *(word for name, value in chosen.items() if value is not None for word in (name, value)), *flags]


def log() -> list[dict[str, object]]:
    return [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]


def test_a_corpus_without_what_reads_it(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_corpus.write_corpus(here / "corpus", {"train": [[small_corpus.document("x = 1\n")]]})
    monkeypatch.delitem(sys.modules, "codegen25.data.corpus", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(arguments(data="corpus")) == 1
    assert capsys.readouterr().err.endswith("error: a corpus needs pyarrow; pip install 'codegen25[data]'\n")
    assert not (here / "run" / "log.jsonl").exists()


def test_from_texts_to_a_model(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("--json")) == 0
    told = capsys.readouterr()
    made = json.loads(told.out)
    assert (made["step"], made["steps"], made["finished"], made["from_step"]) == (3, 3, True, 0)
    assert made["tokens"] == log()[-1]["tokens"] and all(float(str(line["mfu"])) > 0 for line in log())
    assert told.err.count("step ") == 3 and "MFU" in told.err and "tok/s" in told.err
    record = json.loads(Path("run/run.json").read_text())
    assert record["settings"]["stage"] == "multi" and record["settings"]["objective"]["infill_rate"] == 0.5
    assert record["starts"][0]["init"] == "start" and record["starts"][0]["environment"]["torch"] == torch.__version__
    assert read_config(here / "run/model")[0] == tiny.CONFIG
    assert from_folder(here / "run/model").encode("return self") == tiny.tokenizer().encode("return self")
    assert len(load("run/model").complete("def", max_tokens=3).tokens) <= 3


def test_the_model_is_the_masters(here: Path) -> None:
    assert main(arguments(model_dtype="float32")) == 0
    (state,) = Path("run/checkpoint").glob("*.safetensors")
    masters = load_file(state)
    for name, parameter in load_llama(here / "run/model", dtype="float32").named_parameters():
        assert torch.equal(parameter, masters[f"master.{name}"]), name


def test_the_same_command_goes_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With more steps; and with none left it only writes the model again."""
    assert main(arguments(decay="0", steps="2")) == 0
    assert main(arguments("--json", decay="0")) == 0
    assert json.loads(capsys.readouterr().out)["from_step"] == 2
    went_on = (load_file("run/model/model.safetensors"), log())
    assert main(arguments("--json", decay="0")) == 0
    assert json.loads(capsys.readouterr().out)["from_step"] == 3
    assert log() == went_on[1]
    assert main(arguments(decay="0", out="other")) == 0
    straight = load_file("other/model/model.safetensors")
    assert all(torch.equal(straight[name], went_on[0][name]) for name in straight)


def test_one_run_at_a_time_in_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with alone(here / "busy", BUSY):
        assert main(arguments(out="busy")) == 1
    assert "busy: another run is at work here" in capsys.readouterr().err
    assert main(arguments(out="busy")) == 0


def test_every_stage(here: Path) -> None:
    assert main(arguments(stage="mono", init="start", out="mono")) == 0
    assert main(arguments(stage="instruct", init="mono/model", data="pairs.jsonl")) == 0
    targets = [int(str(line["targets"])) for line in log()]
    assert all(0 < n < 4 * 12 for n in targets), "responses alone are learned"


def test_from_a_shape(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from codegen25.config import SHAPES
    from codegen25.tokenizer import family

    small = tiny.CONFIG.with_vocab(family().n_vocab)
    monkeypatch.setitem(SHAPES, "350m", small)
    assert main(arguments(init=None, shape="350m")) == 0
    assert read_config(here / "run/model")[0] == small
    assert 10 < float(str(log()[0]["loss"])) < 12, "that of a guess"


def test_a_number_of_tokens(here: Path) -> None:
    assert main(arguments(steps=None, tokens="2K")) == 0
    assert 1500 < int(str(log()[-1]["tokens"])) < 2700


def test_measured_while_it_learns(here: Path) -> None:
    assert main(arguments(evaluate_every="2", heldout="texts.jsonl")) == 0
    found = {int(str(line["step"])): line["evaluation"] for line in log() if "evaluation" in line}
    assert list(found) == [0, 2]
    for one in found.values():
        assert isinstance(one, dict)
        assert one["bits_per_byte"].keys() == {"python", "all"} and 0 <= one["infill_exact"] <= 1
        assert one["bits_per_byte"]["python"] == one["bits_per_byte"]["all"]


def test_responses_are_measured_while_instruct_learns_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = {"stage": "instruct", "data": "pairs.jsonl", "evaluate_every": "2"}
    assert main(arguments(**more)) == 1
    assert "name a JSONL file as --heldout" in capsys.readouterr().err
    assert main(arguments(**more, heldout="pairs.jsonl")) == 0
    found = [line["evaluation"] for line in log() if "evaluation" in line]
    assert len(found) == 2
    for one in found:
        assert isinstance(one, dict) and one.keys() == {"bits_per_byte"}
        assert one["bits_per_byte"]["responses"] == one["bits_per_byte"]["all"] > 0


def test_bits_per_byte_are_those_of_score(here: Path) -> None:
    """Held against `codegen25 score`, whose context has no window of 128."""
    one = "def f(x):\n    return x\n"
    Path("one.jsonl").write_text(json.dumps({"content": one}) + "\n")
    assert main(arguments(evaluate_every="9", heldout="one.jsonl", steps="1")) == 0
    evaluation = log()[0]["evaluation"]
    assert isinstance(evaluation, dict)
    expected = load("start", dtype="float32").score(one).bits_per_byte
    assert evaluation["bits_per_byte"]["all"] == pytest.approx(expected, abs=2e-3)


def test_tensorboard_is_optional(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.util import find_spec

    code = main(arguments("--tensorboard"))
    if find_spec("tensorboard") is None:
        assert code == 1 and "pip install tensorboard" in capsys.readouterr().err
    else:
        assert code == 0 and any(Path("run/events").iterdir())


WRONG: dict[str, tuple[int, Sequence[str], str]] = {
    "no data": (1, arguments(data="none.jsonl"), "none.jsonl: no such file or folder"),
    "a folder that is no corpus": (1, arguments(data="start"), "start: not a finished corpus"),
    "no model": (1, arguments(init="none"), "none: no such folder"),
    "both": (2, arguments(shape="350m"), "give --init or --shape, one of the two"),
    "neither": (2, arguments(init=None), "give --init or --shape, one of the two"),
    "how long, twice": (2, arguments(tokens="5M"), "give --steps or --tokens, one of the two"),
    "no count": (2, arguments(steps=None, tokens="many"), "--tokens many: no count"),
    "a small window": (1, arguments(window="63"), "63 tokens"),
    "a large window": (2, arguments(window="300"), "--window 300: the model has 256 positions"),
    "no rate": (1, arguments(rate="0"), "rate is 0.0, it must be positive"),
    "a rate that is none": (1, arguments(rate="nan"), "rate is nan"),
    "no kind of holes": (2, arguments(mixture="holes=1"), "mixture holes: no such kind"),
    "languages of a file": (2, arguments(languages="python"), "--languages: texts.jsonl is a file"),
    "nothing to measure with": (1, arguments(evaluate_every="1"), "name a JSONL file as --heldout"),
    "texts as instructions": (1, arguments(stage="instruct"), "texts.jsonl:1: no instruction"),
    "instructions as texts": (1, arguments(data="pairs.jsonl"), "pairs.jsonl:1: not a JSON object"),
    "a rate of 10": (1, arguments(rate="10", steps="400", warmup="2"), "run again with a lower --rate than 10"),
}  # fmt: skip


@pytest.mark.parametrize("code, words, said", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_said_in_a_line(
    code: int, words: Sequence[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and said in lines[0], lines


# --- the guard, and what a step costs ---


def test_a_guard_knows_what_is_usual() -> None:
    guard = Guard(vocabulary=50_000)
    for n in range(SEEN):
        assert guard.judge(2.0 + n / 100, 1.0) is None
    assert guard.judge(2 * 2.1 + LOSS_MARGIN, 1.0)
    assert guard.judge(2.0, 1000.0)
    assert guard.bad_in_a_row == 2 and guard.judge(3.0, 5.0) is None and guard.bad_in_a_row == 0
    for _ in range(PATIENCE):
        assert not guard.has_given_up and guard.judge(float("nan"), 1.0)
    assert guard.has_given_up


def test_flops_are_those_that_pytorch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = tiny.model()
    tokens = torch.zeros(2, 40, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        model(tokens).sum().backward()
    attention = 12.0 * 2 * 2 * 8 * 2 * 40 * 40  # it counts all pairs of a row, or none where a kernel is unknown to it
    ours = training_flops(tiny.CONFIG, 80, 80, 0)
    assert counter.get_total_flops() in (pytest.approx(ours), pytest.approx(ours + attention, rel=0.1))
