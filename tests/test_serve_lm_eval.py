"""lm-eval itself, as it is published, asks the server, and gets the log-likelihoods of `codegen25 score`.

It needs the extra `lm-eval`, in this environment or in one whose programs are on the PATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import serving, small_model

from codegen25.engine.sampling import log_softmax

BESIDE = Path(sys.executable).with_name("lm_eval")
LM_EVAL = str(BESIDE) if BESIDE.exists() else shutil.which("lm_eval")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(LM_EVAL is None, reason="no lm-eval")]

TEXTS = [
    "def f(a, b):\n    return a + b\n",
    "x = '<|endoftext|>é🙂'\n\tprint(x)",
    "import os\n\nfor name in os.listdir('.'):\n    print(name)\n",
    "# " + "a long line " * 150,
]
# Where a context ends and its continuation begins.
AT = 12
TASK = """\
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{before}"
doc_to_target: "{{{{{behind}}}}}"
target_delimiter: ""
metric_list: [{{metric: {metric}, aggregation: {aggregation}, higher_is_better: true}}]
"""


def write_tasks(folder: Path) -> None:
    data = folder / "texts.jsonl"
    rows = [{"text": text, "context": text[:AT], "rest": text[AT:]} for text in TEXTS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    common: dict[str, Any] = {"data": data}
    whole = TASK.format(
        name="whole", kind="loglikelihood_rolling", before="", behind="text", metric="bits_per_byte",
        aggregation="bits_per_byte", **common,
    )  # fmt: skip
    rest = TASK.format(
        name="rest", kind="loglikelihood", before="{{context}}", behind="rest", metric="acc", aggregation="mean",
        **common,
    )  # fmt: skip
    (folder / "whole.yaml").write_text(whole)
    (folder / "rest.yaml").write_text(rest)


def evaluated(url: str, folder: Path) -> dict[str, list[list[str]]]:
    """What lm-eval heard, by task: of each text the log-likelihood, and whether it is greedy."""
    assert LM_EVAL
    offline = {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    model = f"base_url={url}/v1/completions,model=small,max_length=600"  # its tokenizer: the server's, found by itself
    command = [
        LM_EVAL, "run", "--model", "local-completions", "--model_args", model, "--include_path", str(folder),
        "--tasks", "whole,rest", "--output_path", str(folder / "out"), "--log_samples",
    ]  # fmt: skip
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = {}
    for task in ("whole", "rest"):
        (file,) = (folder / "out").rglob(f"samples_{task}_*.jsonl")
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        found[task] = [row["resps"][0] for row in sorted(rows, key=lambda row: row["doc_id"])]
    return found


def continuation(context: str, rest: str) -> tuple[float, bool]:
    """The log-likelihood of `rest` behind `context`, straight from the model, and whether it is the likeliest.

    In lm-eval's tokens: those of the context alone, then those of the whole behind as many.
    """
    model = small_model()
    before = model.tokenizer.encode(context)
    start = len(before)
    ids = [*before, *model.tokenizer.encode(context + rest)[start:]]
    (rows,) = model.backend.forward([(model.backend.new(), ids, True)])
    new = range(start, len(ids))
    total = sum(float(log_softmax(rows[at - 1])[ids[at]]) for at in new)
    return total, all(int(rows[at - 1].argmax()) == ids[at] for at in new)


def test_lm_eval_hears_what_score_says(tmp_path: Path) -> None:
    write_tasks(tmp_path)
    with serving() as server:
        found = evaluated(server.url, tmp_path)
    for text, whole, (rest,) in zip(TEXTS, found["whole"], found["rest"], strict=True):
        assert float(whole[0]) == pytest.approx(small_model().score(text).total, rel=1e-5)
        total, is_greedy = continuation(text[:AT], text[AT:])
        assert float(rest[0]) == pytest.approx(total, rel=1e-5)
        assert rest[1] == str(is_greedy)
