"""The command line: what it writes where, its exit codes, and every kind of bad input."""

from __future__ import annotations

import dataclasses
import errno
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from publisher_folder import random_llama

import codegen25
from codegen25 import complete, tokenizer
from codegen25.cli import cli, main
from codegen25.complete import ANCHOR_LINES
from codegen25.config import ModelConfig
from codegen25.engine.decode import decode
from codegen25.engine.sampling import Sampling
from codegen25.model import weights
from codegen25.model.checkpoint import save_llama
from codegen25.model.hf_tokenizer import write_tokenizer
from codegen25.model.quantize import quantize

SHAPE = ModelConfig(51200, 64, 128, 1, 2, 2, 32, 256, tied=True)
SOURCE = 'def mean(xs):\n    """The mean."""\n    return sum(xs) / len(xs)\n\n\nprint(mean([1, 2]))\n'
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with random weights in 8 bits and the family's vocabulary."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    plain = folder.with_name("plain")
    save_llama(random_llama(SHAPE), plain, dtype="float32", tokenizer=tokenizer.family())
    write_tokenizer(plain)
    quantize(plain, folder, bits=8, notice=lambda line: None)
    return str(folder)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def run(*argv: object, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(argument) for argument in argv])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mean.py"
    path.write_bytes(SOURCE.encode())
    return path


@pytest.fixture(autouse=True)
def parse_once(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading 51,200 tokens again for every test is what would take the time."""
    monkeypatch.setattr(weights, "from_folder", lambda path: read_tokenizer(path, str(path) == model))


def read_tokenizer(path: Path, is_shared: bool) -> tokenizer.Tokenizer:
    return cached_tokenizer(path) if is_shared else tokenizer.from_folder(path)


cached_tokenizer = cache(tokenizer.from_folder)


@cache
def loaded(model: str) -> codegen25.Model:
    return codegen25.load(model)


def command(*argv: object) -> list[str]:
    return [sys.executable, "-m", "codegen25", *map(str, argv)]


def assert_one_line(code: int, err: str, expected: int, pattern: str) -> None:
    assert code == expected, err
    assert re.fullmatch(rf"codegen25: error: [^\n]*{pattern}[^\n]*\n", err), err


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


# --------------------------------------------------------------------------------------------------------------- infill


def test_one_hole_writes_the_span_only(run: Run, model: str, file: Path) -> None:
    at = SOURCE.index("sum")
    expected = loaded(model).infill(SOURCE[:at], SOURCE[at:], max_tokens=6).text
    assert expected
    assert run("infill", file, "--at", "3:12", "--model", model, "--max-tokens", 6) == (0, expected, "")
    assert file.read_bytes() == SOURCE.encode()


@pytest.mark.parametrize(
    ("flags", "anchor"),
    [([], ANCHOR_LINES), (["--anchor", "0"], 0), (["--plain"], 0), (["--anchor", "all"], None), (["--anchor", 2], 2)],
)
def test_anchor(
    run: Run, model: str, file: Path, monkeypatch: pytest.MonkeyPatch, flags: list[object], anchor: int | None
) -> None:
    real, seen = codegen25.Model.infill_holes, []

    def spy(self: codegen25.Model, parts: Any, **arguments: Any) -> Any:
        seen.append(arguments["anchor"])
        return real(self, parts, **arguments)

    monkeypatch.setattr(codegen25.Model, "infill_holes", spy)
    assert run("infill", file, "--at", 3, "--model", model, "--max-tokens", 2, *flags)[0] == 0
    assert seen == [anchor]


def test_anchor_and_plain_contradict(run: Run, file: Path) -> None:
    code, _, err = run("infill", file, "--at", 1, "--plain", "--anchor", 3)
    assert_one_line(code, err, 2, "--plain.*--anchor")


def cut(source: str, *offsets: int) -> list[str]:
    edges = [0, *offsets, len(source)]
    return [source[a:b] for a, b in pairwise(edges)]


def test_several_holes_in_the_order_of_the_file(run: Run, model: str, file: Path) -> None:
    offsets = [SOURCE.index("):\n"), SOURCE.index("return") + 6]
    spans = loaded(model).infill_holes(cut(SOURCE, *offsets), max_tokens=5)
    flags = ["--at", "3:11", "--at", "1:12", "--model", model, "--max-tokens", 5]
    first, second = (c.text if c.text.endswith("\n") or not c.text else c.text + "\n" for c in spans)
    assert run("infill", file, *flags) == (0, f"hole 1, 1:12\n{first}hole 2, 3:11\n{second}", "")
    answer = json.loads(run("infill", file, *flags, "--json")[1])
    assert answer["file"] == str(file) and answer["applied"] is False
    assert [(h["line"], h["column"], h["text"], h["finish_reason"], h["tokens"]) for h in answer["holes"]] == [
        (line, column, c.text, c.finish_reason, list(c.tokens))
        for (line, column), c in zip([(1, 12), (3, 11)], spans, strict=True)
    ]


@pytest.mark.parametrize(("bom", "ending"), [(b"", "\n"), (b"", "\r\n"), (b"\xef\xbb\xbf", "\r\n")])
def test_apply(run: Run, model: str, file: Path, bom: bytes, ending: str) -> None:
    before = bom + SOURCE.replace("\n", ending).encode()
    file.write_bytes(before)
    file.chmod(0o751)
    offsets = [SOURCE.index(":\n"), SOURCE.index("\n\nprint")]
    spans = loaded(model).infill_holes(cut(SOURCE, *offsets), max_tokens=20)
    code, out, err = run("infill", file, "--at", "1:13", "--at", 4, "--apply", "--model", model, "--max-tokens", 20)
    assert code == 0, err
    parts = cut(SOURCE, *offsets)
    new = parts[0] + spans[0].text + parts[1] + spans[1].text + parts[2]
    assert file.read_bytes() == bom + new.replace("\n", ending).encode() != before
    assert file.stat().st_mode & 0o777 == 0o751 and [path.name for path in file.parent.iterdir()] == [file.name]
    for place, span in zip(["1:13", "4:1"], spans, strict=True):
        assert span.text in out
        note = ", which has no end yet (length)" if span.finish_reason == "length" else ""
        assert f"{file}:{place}: {len(span.text)} characters inserted{note}\n" in err


def test_apply_nothing_leaves_the_very_file(run: Run, model: str, file: Path) -> None:
    before = file.stat()
    code, out, err = run("infill", file, "--at", 1, "--apply", "--json", "--max-tokens", 0, "--model", model)
    assert code == 0 and json.loads(out)["applied"] is True and "0 characters inserted" in err
    assert file.stat().st_ino == before.st_ino


@pytest.mark.parametrize("as_json", [False, True])
def test_full_disk_at_apply(run: Run, model: str, file: Path, monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    expected = run("infill", file, "--at", "3:12", "--model", model, "--max-tokens", 6)[1]
    monkeypatch.setattr(os, "fsync", full)
    flags = ["--apply", "--model", model, "--max-tokens", 6] + ["--json"] * as_json
    code, out, err = run("infill", file, "--at", "3:12", *flags)
    assert_one_line(code, err, 1, "mean.py: .*No space left.*unchanged; free some space")
    assert file.read_bytes() == SOURCE.encode() and [path.name for path in file.parent.iterdir()] == [file.name]
    if as_json:
        assert json.loads(out)["applied"] is False and json.loads(out)["holes"][0]["text"] == expected
    else:
        assert out == expected


@pytest.mark.parametrize(
    ("at", "pattern"),
    [("8:1", "mean.py: line 8 .*1 to 7"), ("1:15", "mean.py: column 15 .*1 to 14"), ("999999999", "line")],
)
def test_cursor_outside_the_file(run: Run, file: Path, at: str, pattern: str) -> None:
    code, _, err = run("infill", file, "--at", at)
    assert_one_line(code, err, 1, pattern)


def test_control_strings_in_a_file_stay_text(run: Run, model: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They open no hole, close none, and come back out of the file as they were."""
    real: Any = decode
    prompts: list[list[int]] = []

    def spy(backend: Any, tokens: Any, requests: Any) -> Any:
        prompts.extend(list(request.prompt) for request in requests)
        return real(backend, tokens, requests)

    monkeypatch.setattr(complete, "decode", spy)
    text = "a = '<mask_1>'\nb = '<eom><sep>'\n\nc = '<|endoftext|>'\n"
    file.write_text(text)
    code, _, err = run("infill", file, "--at", 3, "--apply", "--max-tokens", 3, "--model", model)
    assert code == 0, err
    assert file.read_text().startswith(text[:31]) and file.read_text().endswith(text[32:])
    family = tokenizer.family()
    control = [id for id in prompts[0] if family.is_control(id)]
    assert control == [family.masks[0], family.eot, family.sep, family.masks[0]]
    prompts.clear()
    assert run("complete", "--file", file, "--max-tokens", 3, "--model", model)[0] == 0
    assert not [id for id in prompts[0] if family.is_control(id)]


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


# ------------------------------------------------------------------------------------------------------------ bad input


def edited(model: str, folder: Path, **changes: Any) -> Path:
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def truncated(model: str, folder: Path) -> Path:
    weights = edited(model, folder) / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    return folder


def corrupted(model: str, folder: Path) -> Path:
    with (edited(model, folder) / "model.safetensors").open("r+b") as file:
        file.seek(8)
        file.write(b"\xff" * 64)
    return folder


def other_vocabulary(model: str, folder: Path) -> Path:
    small = dataclasses.replace(SHAPE, vocab_size=300)
    save_llama(random_llama(small), folder, dtype="float32")
    write_tokenizer(folder)
    return folder


def without_weights(model: str, folder: Path) -> Path:
    (edited(model, folder) / "model.safetensors").unlink()
    return folder


def no_model(model: str, folder: Path) -> Path:
    folder.mkdir()
    return folder


def broken_config(model: str, folder: Path) -> Path:
    (edited(model, folder) / "config.json").write_text("{")
    return folder


def broken_tokenizer(model: str, folder: Path) -> Path:
    (edited(model, folder) / "tokenizer.json").write_text("[]")
    return folder


BAD_MODELS: dict[str, Callable[[str, Path], Path]] = {
    "no such folder": lambda model, folder: folder,
    "no model": no_model,
    "truncated": truncated,
    "corrupted": corrupted,
    "without weights": without_weights,
    "broken config": broken_config,
    "broken tokenizer": broken_tokenizer,
    "hidden size contradicts": lambda model, folder: edited(model, folder, hidden_size=48),
    "layers contradict": lambda model, folder: edited(model, folder, num_hidden_layers=2),
    "vocabulary contradicts": lambda model, folder: edited(model, folder, vocab_size=51201),
    "other vocabulary": other_vocabulary,
    "other architecture": lambda model, folder: edited(model, folder, model_type="gpt2"),
}


@pytest.mark.parametrize("kind", BAD_MODELS)
@pytest.mark.parametrize("verb", ["complete", "infill"])
def test_bad_model(run: Run, model: str, tmp_path: Path, file: Path, kind: str, verb: str) -> None:
    folder = BAD_MODELS[kind](model, tmp_path / "bad-model")
    argv: list[object] = ["complete", "x"] if verb == "complete" else ["infill", file, "--at", 1, "--apply"]
    code, out, err = run(*argv, "--model", folder)
    assert_one_line(code, err, 1, "bad-model.*;")  # what is wrong; what to do
    assert out == "" and file.read_bytes() == SOURCE.encode()


@pytest.mark.parametrize(
    ("data", "pattern"), [(b"\x89PNG\r\n\0\0", "binary"), (b"caf\xe9", "not UTF-8"), ("x".encode("utf-16"), "binary")]
)
def test_what_is_no_text(run: Run, file: Path, data: bytes, pattern: str) -> None:
    file.write_bytes(data)
    for argv in (["infill", file, "--at", "1:1", "--apply"], ["complete", "--file", file], ["score", "--file", file]):
        code, _, err = run(*argv)
        assert_one_line(code, err, 1, f"mean.py: .*{pattern}")
    assert file.read_bytes() == data
    code, _, err = run("complete", "-", stdin=data)
    assert_one_line(code, err, 1, f"standard input: .*{pattern}")


def test_missing_file(run: Run, tmp_path: Path) -> None:
    for argv in (
        ["infill", tmp_path / "no.py", "--at", 1],
        ["complete", "--file", tmp_path],
        ["score", "--file", "no"],
    ):
        code, _, err = run(*argv)
        assert_one_line(code, err, 1, "cannot be read")


def test_text_that_is_no_unicode(run: Run) -> None:
    code, _, err = run("complete", "caf\udce9")
    assert_one_line(code, err, 2, "not valid UTF-8")


def test_a_bug_stays_a_traceback(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*_: Any, **__: Any) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(codegen25.Model, "samples", bug)
    with pytest.raises(ValueError, match="a bug"):
        main(["complete", "x", "--model", model])


# -------------------------------------------------------------------------------------------------- as a real process


WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from codegen25.cli import main; sys.exit(main())"


@pytest.mark.parametrize("argv", [["complete", "x", "--max-tokens", "2"], ["score", "x", "--threads", "1"]])
def test_without_torch(model: str, argv: list[str]) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, *argv, "--model", model]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "") and result.stdout


@pytest.mark.parametrize(
    "argv", [["complete", "x", "--device", "cuda"], ["export", "MODEL", "--to", "hf", "--out", "OUT"]]
)
def test_what_needs_torch_says_so(model: str, tmp_path: Path, argv: list[str]) -> None:
    filled = [{"MODEL": model, "OUT": str(tmp_path / "out")}.get(argument, argument) for argument in argv]
    result = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *filled], capture_output=True, text=True)
    assert_one_line(result.returncode, result.stderr, 1, re.escape("pip install 'codegen25[torch]'"))


def test_output_in_a_narrow_encoding(model: str) -> None:
    """A terminal that knows no such characters shows escapes."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    argv = command("score", "漢", "--model", model)
    result = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert result.returncode == 0 and result.stdout.isascii(), result.stderr


def test_closed_stdin() -> None:
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command("complete", "-")], capture_output=True, text=True
    )
    assert_one_line(result.returncode, result.stderr, 2, "standard input is closed")


def test_full_disk_behind_stdout(model: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with Path("/dev/full").open("w") as full:
        argv = command("complete", "x", "--model", model, "--max-tokens", 4, "--json")
        result = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    assert_one_line(result.returncode, result.stderr, 1, "standard output: .*No space left")


def test_a_reader_that_goes_away(model: str) -> None:
    argv = command("complete", SOURCE, "--model", model, "--max-tokens", 100)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_interrupt(model: str) -> None:
    """Ctrl-C while standard input is awaited."""
    with subprocess.Popen(
        command("complete", "-", "--model", model),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell's background job is born deaf to it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        status = Path(f"/proc/{process.pid}/wchan")
        for _ in range(600):
            if status.exists() and "pipe" in status.read_text():
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130 and out == b"" and b"Traceback" not in err


def test_streams_as_it_generates(run: Run, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token's text is flushed before the next one is computed."""
    from codegen25.engine.cpu import CpuBackend

    written: list[int] = []
    real = CpuBackend.forward
    out = io.StringIO()

    def forward(self: CpuBackend, rows: Any) -> Any:
        written.append(len(out.getvalue()))
        return real(self, rows)

    monkeypatch.setattr(CpuBackend, "forward", forward)
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["complete", SOURCE, "--model", model, "--max-tokens", "8"]) == 0
    assert written == sorted(written) and len(set(written)) > 4


@pytest.mark.parametrize(
    ("device", "code", "pattern"), [("nonsense", 2, "choose cpu"), ("cuda", 1, "use cpu"), ("mps", 1, "use cpu")]
)
def test_a_device_that_is_not_there(run: Run, model: str, device: str, code: int, pattern: str) -> None:
    if (device == "cuda" and torch.cuda.is_available()) or (device == "mps" and torch.backends.mps.is_available()):
        pytest.skip("this machine has one")
    assert_one_line(*run("score", "x", "--model", model, "--device", device)[::2], code, pattern)


def test_a_file_over_the_window_is_trimmed_and_said_so(run: Run, model: str, file: Path) -> None:
    file.write_text("".join(f"value_{n} = {n}\n" for n in range(2000)))
    code, out, err = run("infill", file, "--at", "1000", "--max-tokens", "2", "--model", model, "--json")
    assert code == 0
    assert json.loads(out)["holes"][0]["tokens"]
    assert re.fullmatch(
        rf"codegen25: {file}: over the model's window; only \d+ tokens around the holes were used\n", err
    )
