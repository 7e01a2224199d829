"""Commands run in this process or in one of their own, on a small model; for the tests of the command line."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from publisher_folder import random_llama

import codegen25
from codegen25 import tokenizer
from codegen25.cli import main
from codegen25.config import ModelConfig
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
