"""The command line: what it writes where, its exit codes, and every kind of bad input."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from commands import (
    SHAPE,
    SOURCE,
    Run,
    assert_one_line,
    file,
    loaded,
    model,
    parse_once,
    run,
)

import codegen25
from codegen25 import tokenizer
from codegen25.cli import cli
from codegen25.engine.sampling import Sampling

__all__ = ["file", "model", "parse_once", "run"]

# ----------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("verb", [[], ["complete"], ["infill"], ["score"], ["tokenizer"], ["export"], ["quantize"]])
def test_help_shows_an_example(run: Run, verb: list[str]) -> None:
    code, out, err = run(*verb, "--help")
    assert code == 0 and not err
    assert re.search(rf"Examples?:\n +codegen25 {' '.join(verb)}", out)


@pytest.mark.parametrize("argv", [["--help"], ["infill", "--help"], ["--version"], ["complete", "--nope"]])
def test_help_and_usage_load_nothing_heavy(argv: list[str]) -> None:
    program = f"import sys; from codegen25.cli import main; main({argv}); print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    modules = {name.partition(".")[0] for name in result.stderr.split()}
    assert "codegen25" in modules
    assert not modules & {"torch", "numpy", "transformers", "tiktoken", "regex", "safetensors"}


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"codegen25 {codegen25.__version__}\n", "")


def test_no_command_is_wrong_usage(run: Run) -> None:
    code, out, err = run()
    assert code == 2 and out == "" and "Commands:" in err


@pytest.mark.parametrize("verb", ["complete", "infill"])
def test_sampling_flags_are_those_of_sampling(verb: str) -> None:
    defaults = {option.name: option.default for option in cli.commands[verb].params if isinstance(option, click.Option)}
    fields = {field.name: field.default for field in dataclasses.fields(Sampling)}
    assert {name: defaults[name] for name in fields} == fields


@pytest.mark.parametrize(
    ("argv", "pattern"),
    [
        (["nope"], "nope"),
        (["complete", "--nope", "x"], "--nope"),
        (["complete", "x", "y"], "y"),
        (["complete"], "give one of TEXT"),
        (["complete", "x", "--file", "y"], "give one of TEXT"),
        (["complete", "x", "--max-tokens", "-1"], "--max-tokens"),
        (["complete", "x", "--max-tokens", "many"], "--max-tokens"),
        (["complete", "x", "--n", "0"], "--n"),
        (["complete", "x", "--temperature", "-1"], "temperature"),
        (["complete", "x", "--temperature", "nan"], "temperature"),
        (["complete", "x", "--top-p", "0"], "top-p"),
        (["complete", "x", "--stop", ""], "--stop"),
        (["complete", ""], "nothing to complete"),
        (["complete", "-"], "nothing to complete"),
        (["score", ""], "nothing to score"),
        (["score"], "give one of TEXT"),
        (["infill", "FILE"], "--at"),
        (["infill", "FILE", "--at", "0:1"], "LINE:COL"),
        (["infill", "FILE", "--at", "-1"], "LINE:COL"),
        (["infill", "FILE", "--at", "1:1", "--at", "1:1"], "1:1 is given twice"),
        (["infill", "FILE", "--at", "1:14", "--at", "1"], "1 is given twice"),
        (["infill", "FILE", "--at", "1:1", "--max-tokens", "-5"], "--max-tokens"),
        (["infill", "FILE", "--at", "1:1", "--anchor", "-1"], "--anchor"),
        (["infill", "FILE", "--at", "1:1", "--anchor", "some"], "--anchor"),
        (["export", "nano", "--out", "x"], "--to"),
        (["export", "nano", "--to", "onnx", "--out", "x"], "hf.*gguf"),
        (["quantize", "nano", "--bits", "3", "--out", "x"], "--bits"),
    ],
)
def test_wrong_usage(run: Run, file: Path, argv: list[str], pattern: str) -> None:
    code, out, err = run(*[file if argument == "FILE" else argument for argument in argv])
    assert_one_line(code, err, 2, pattern)
    assert out == ""


# ------------------------------------------------------------------------------------------------------------- complete


def test_complete_writes_the_completion_only(run: Run, model: str) -> None:
    expected = loaded(model).complete(SOURCE, max_tokens=12).text
    assert expected
    assert run("complete", SOURCE, "--model", model, "--max-tokens", 12) == (0, expected, "")


def test_text_file_and_stdin_are_the_same_prompt(run: Run, model: str, file: Path) -> None:
    flags = ["--model", model, "--max-tokens", 8]
    of_text = run("complete", SOURCE, *flags)
    file.write_bytes(b"\xef\xbb\xbf" + SOURCE.replace("\n", "\r\n").encode())
    assert run("complete", "--file", file, *flags) == of_text
    assert run("complete", "-", *flags, stdin=SOURCE.encode()) == of_text
    assert run("complete", SOURCE[:10], *flags) != of_text


def test_complete_json(run: Run, model: str) -> None:
    flags = ["--model", model, "--max-tokens", 6, "--n", 2, "--temperature", 1, "--seed", 3]
    expected = loaded(model).samples(SOURCE, 2, max_tokens=6, sampling=Sampling(temperature=1, seed=3))
    code, out, err = run("complete", SOURCE, *flags, "--json", "--logprobs")
    answer = json.loads(out)
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert answer["model"] == model and answer["prompt_tokens"] == expected[0].prompt_tokens
    for found, completion in zip(answer["completions"], expected, strict=True):
        assert found.pop("logprobs") == list(completion.logprobs)
        assert found == {
            "text": completion.text,
            "finish_reason": completion.finish_reason,
            "tokens": list(completion.tokens),
        }
    assert "logprobs" not in json.loads(run("complete", SOURCE, *flags, "--json")[1])["completions"][0]


def test_several_completions_stand_under_headers(run: Run, model: str) -> None:
    expected = loaded(model).samples(SOURCE, 2, max_tokens=6, sampling=Sampling(temperature=1))
    code, out, err = run("complete", SOURCE, "--model", model, "--max-tokens", 6, "--n", 2, "--temperature", 1)
    first, second = (c.text if c.text.endswith("\n") else c.text + "\n" for c in expected)
    assert (code, out, err) == (0, f"completion 1\n{first}completion 2\n{second}", "")


def test_many_greedy_completions_are_remarked_on(run: Run, model: str) -> None:
    code, out, err = run("complete", "x", "--model", model, "--max-tokens", 2, "--n", 2, "--json")
    assert code == 0 and "will be the same" in err and len(json.loads(out)["completions"]) == 2


def test_logprobs_as_a_table(run: Run, model: str) -> None:
    completion = loaded(model).complete(SOURCE, max_tokens=4)
    code, out, _ = run("complete", SOURCE, "--model", model, "--max-tokens", 4, "--logprobs")
    rows = [line.split(None, 1) for line in out.splitlines()]
    assert code == 0 and [float(row[0]) for row in rows] == [round(value, 3) for value in completion.logprobs]
    tokens = [loaded(model).tokenizer.token_bytes(id) for id in completion.tokens]
    shown = [eval(row[1]) for row in rows]
    assert [token if isinstance(token, bytes) else token.encode() for token in shown] == tokens


def test_no_tokens_wanted(run: Run, model: str) -> None:
    assert run("complete", "x", "--model", model, "--max-tokens", 0) == (0, "", "")
    answer = json.loads(run("complete", "x", "--model", model, "--max-tokens", 0, "--json")[1])
    assert answer["completions"] == [{"text": "", "finish_reason": "length", "tokens": []}]


def test_stop_string(run: Run, model: str) -> None:
    whole = run("complete", SOURCE, "--model", model, "--max-tokens", 12)[1]
    stop = whole[len(whole) // 2 :][:3]
    code, out, _ = run(
        "complete", SOURCE, "--model", model, "--max-tokens", 12, "--stop", stop, "--stop", "no such text"
    )
    assert code == 0 and out == whole[: whole.index(stop)]


def test_at_a_terminal(run: Run, model: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person is told that the text has no end, and gets the shell's prompt on a line of its own."""
    plain = run("complete", SOURCE, "--model", model, "--max-tokens", 5)[1]
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    note = "codegen25: {} has no end within --max-tokens 5\n"
    shown = (0, plain.removesuffix("\n") + "\n", note.format("completion 1"))
    assert run("complete", SOURCE, "--model", model, "--max-tokens", 5) == shown
    assert run("infill", file, "--at", 3, "--model", model, "--max-tokens", 5)[2] == note.format("hole 1, 3:29")


def test_prompt_over_the_window(run: Run, model: str) -> None:
    lines = [f"value_{number} = {number}\n" for number in range(1000)]
    code, out, err = run("complete", "-", "--model", model, "--max-tokens", 4, "--json", stdin="".join(lines).encode())
    answer = json.loads(out)
    assert code == 0 and answer["prompt_tokens"] < SHAPE.max_positions
    assert err == (
        f"codegen25: the text is over the model's window; only its last {answer['prompt_tokens']} tokens were used\n"
    )
    # Cut at a line start: the last lines alone give the same answer, without a notice.
    for kept in range(len(lines)):
        tail = "".join(lines[-kept:])
        if len(tokenizer.family().encode(tail.removesuffix("\n"))) == answer["prompt_tokens"]:
            break
    again = run("complete", tail, "--model", model, "--max-tokens", 4, "--json")
    assert json.loads(again[1]) == answer and again[2] == ""


def test_more_tokens_than_the_window(run: Run, model: str, file: Path) -> None:
    for argv in (["complete", "x"], ["infill", file, "--at", 1]):
        code, _, err = run(*argv, "--model", model, "--max-tokens", 100_000)
        assert_one_line(code, err, 2, "100000.*window.*fewer")


# ---------------------------------------------------------------------------------------------------------------- score


def test_score(run: Run, model: str, file: Path) -> None:
    expected = loaded(model).score(SOURCE)
    answer = json.loads(run("score", "--file", file, "--json", "--model", model)[1])
    assert answer == {
        "model": model,
        "tokens": list(expected.tokens),
        "logprobs": list(expected.logprobs),
        "total": expected.total,
        "bytes": len(SOURCE.encode()),
        "bits_per_byte": expected.bits_per_byte,
    }
    code, out, err = run("score", "-", "--model", model, stdin=SOURCE.encode())
    *rows, total, bits = out.splitlines()
    assert code == 0 and not err and len(rows) == len(expected.tokens)
    assert "".join(eval(row.split(None, 1)[1]) for row in rows) == SOURCE
    assert float(total.split()[0]) == round(expected.total, 3)
    assert float(bits.split()[0]) == round(expected.bits_per_byte, 3)


def test_score_takes_line_endings_as_they_are(run: Run, model: str, file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfa\r\nb\r\n")
    assert json.loads(run("score", "--file", file, "--json", "--model", model)[1])["bytes"] == 6


# -------------------------------------------------------------------------------------------------------- model folders


def test_tokenizer(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "tokenizer"
    assert run("tokenizer", folder)[0] == 0
    ids = tokenizer.from_folder(folder).encode(SOURCE)
    assert ids == tokenizer.family().encode(SOURCE)
    code, _, err = run("tokenizer", folder)
    assert_one_line(code, err, 1, "not empty; name a new folder")
    (tmp_path / "file").write_text("")
    assert_one_line(run("tokenizer", tmp_path / "file")[0], run("tokenizer", tmp_path / "file")[2], 1, "file: ")


def test_export_and_quantize_load_again(run: Run, model: str, tmp_path: Path) -> None:
    assert run("export", model, "--to", "hf", "--out", tmp_path / "hf")[0] == 0
    assert run("complete", "x", "--model", tmp_path / "hf", "--max-tokens", 2)[0] == 0
    code, _, err = run("export", model, "--to", "hf", "--out", tmp_path / "hf")
    assert_one_line(code, err, 1, "hf: .*exists")
    assert run("quantize", tmp_path / "hf", "--bits", 8, "--out", tmp_path / "int8")[0] == 0
    answer = run("score", SOURCE, "--model", tmp_path / "int8", "--json")
    assert answer[0] == 0, answer
    exact = loaded(model).score(SOURCE).bits_per_byte
    assert json.loads(answer[1])["bits_per_byte"] == pytest.approx(exact, rel=0.05)
