"""The command line with bad input, and as a process: one line of error, never half a file."""

from __future__ import annotations

import dataclasses
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
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import (
    SHAPE,
    SOURCE,
    Run,
    assert_one_line,
    command,
    file,
    model,
    parse_once,
    run,
)
from publisher_folder import random_llama

import codegen25
from codegen25.cli import main
from codegen25.model.checkpoint import save_llama
from codegen25.model.hf_tokenizer import write_tokenizer

__all__ = ["file", "model", "parse_once", "run"]

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
