"""A corpus may be larger than memory: what a build holds of it at any time is bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_sources import program

from codegen25.data.corpus import Corpus

LIMIT = 2 << 30
TEXT = LIMIT + (100 << 20)


def write_rows(path: Path) -> int:
    """Rows of programs, until there are TEXT bytes of them; how many rows."""
    size = rows = 0
    with path.open("w", encoding="utf-8") as file:
        while size < TEXT:
            text = program(rows if rows % 20 else rows + 1, functions=60).replace(
                "least", "bottom" if rows % 20 else "least", 1
            )
            row = {"content": text, "path": f"p{rows}.py", "repo_name": f"owner/project{rows // 50}", "license": "mit"}
            file.write(json.dumps(row) + "\n")
            size += len(text)
            rows += 1
    return rows


def resident(group: int) -> int:
    """Bytes in memory of all processes of a group, pages that they share counted for each."""
    total = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getpgid(int(folder.name)) == group:
                    total += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            except (ProcessLookupError, FileNotFoundError):
                continue
    return total


@pytest.mark.slow
def test_memory_is_bounded_on_a_corpus_larger_than_the_bound(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "large.jsonl")
    arguments = ["data", "build", str(tmp_path / "large.jsonl"), "--out", str(tmp_path / "corpus"), "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-m", "codegen25", *arguments], start_new_session=True)
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        time.sleep(0.2)
    print(f"{rows} rows, {TEXT >> 20} MiB of text, peak {peak >> 20} MiB in all processes")
    assert process.returncode == 0
    corpus = Corpus(tmp_path / "corpus")
    total = corpus.manifest["totals"]["train"]
    assert total["documents"] > rows // 2
    assert corpus.manifest["files"] == rows
    assert peak < LIMIT
