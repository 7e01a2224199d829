"""Likelihood: against transformers on the same weights, spans as they should be asked, texts from everywhere."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from publisher_folder import write_publisher_folder
from small_corpus import document, write_corpus

from codegen25.complete import Model, load
from codegen25.engine.torch import TorchBackend
from codegen25.errors import CodegenError
from codegen25.evaluate import likelihood
from codegen25.evaluate.likelihood import likelihoods, strided_nats
from codegen25.evaluate.texts import Text, read_texts
from codegen25.tokenizer import family

TEXTS = [
    Text("def f(x):\n    return x + 1\n" * 6, "python"),
    Text("x = 1\n", "python"),
    Text("int main() { return 0; }\n" * 4, "c"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("likelihood") / "model"
    write_publisher_folder(path, bins=False)
    return path


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(str(folder), dtype="float32")


def _quiet(*_: object) -> None:
    pass


@pytest.mark.parametrize(("window", "stride"), [(16, 5), (16, 15), (30, 15), (1000, 500)])
def test_bits_are_those_of_transformers(folder: Path, model: Model, window: int, stride: int) -> None:
    """The recipe of its documentation for texts that are longer than the window: labels of what was scored are -100."""
    from transformers import LlamaForCausalLM

    theirs = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found = likelihoods(model, TEXTS, window=window, stride=stride, progress=_quiet)
    assert list(found) == ["python", "c", "all"]
    total = 0.0
    for language in ("python", "c"):
        nats = 0.0
        for text in (text for text in TEXTS if text.language == language):
            ids = torch.tensor([[50256, *model.tokenizer.encode(text.content)]])
            last = 0
            for begin in range(0, ids.shape[1], stride):
                end = min(begin + window, ids.shape[1])
                labels = ids[:, begin:end].clone()
                labels[:, : max(0, last - begin)] = -100
                scored = int((labels[:, 1:] != -100).sum())
                if scored:
                    with torch.no_grad():
                        nats += theirs(ids[:, begin:end], labels=labels).loss.item() * scored
                last = end
                if end == ids.shape[1]:
                    break
        assert found[language].nats == pytest.approx(nats, rel=1e-4)
        total += nats
    sums = found["all"]
    assert (sums.files, sums.bytes) == (3, sum(len(text.content) for text in TEXTS))
    assert sums.tokens == sum(len(model.tokenizer.encode(text.content)) for text in TEXTS)
    assert sums.bits_per_byte.value == pytest.approx(total / math.log(2) / sums.bytes, rel=1e-4)
    assert sums.bits_per_byte.low <= sums.bits_per_byte.value <= sums.bits_per_byte.high
    assert sums.perplexity == pytest.approx(math.exp(total / sums.tokens), rel=1e-4)


@given(st.integers(1, 60), st.integers(2, 20), st.data())
def test_every_token_is_scored_once_with_enough_before_it(length: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.integers(1, window - 1))
    seen: dict[int, int] = {}

    def spy(backend: object, ids: Sequence[int], first: int) -> list[float]:
        assert len(ids) <= window and first >= 1
        for place in range(first, len(ids)):
            assert ids[place] not in seen
            seen[ids[place]] = place
        return [0.0] * (len(ids) - first)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(likelihood, "token_nats", spy)
        nats = strided_nats(cast(TorchBackend, None), range(length), window=window, stride=stride)
    assert len(nats) == length - 1 and sorted(seen) == list(range(1, length))
    assert all(before >= min(token, window - stride) for token, before in seen.items())


@pytest.mark.parametrize("first", [1, 4, 5, 6, 11, 12])
def test_nats_are_those_of_the_model(model: Model, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = model.tokenizer.encode("def f(x):\n    return x + 1\n\nprint(f(2))")[:12]
    assert len(ids) == 12
    with torch.no_grad():
        logprobs = torch.log_softmax(cast(TorchBackend, model.backend).model(torch.tensor([ids]))[0], -1)
    expected = [-logprobs[i - 1, ids[i]].item() for i in range(first, 12)]
    monkeypatch.setattr(likelihood, "CHUNK", 5)
    assert likelihood.token_nats(model.backend, ids, first) == pytest.approx(expected, abs=1e-4)


# --------------------------------------------------------------------------------------------------------------- spans


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


def test_without_a_second_line_there_is_no_span(model: Model) -> None:
    with pytest.raises(CodegenError, match="no held-out file has a second line"):
        likelihood.span_nats_of(model, [Text("x", "py")], window=64, anchor_lines=8, seed=0)


# --------------------------------------------------------------------------------------------------------------- texts


def _texts(*paths: Path, files: int | None = None, characters: int | None = None) -> list[Text]:
    return read_texts(paths, files=files, characters=characters, seed=0)


def test_texts_from_everywhere(tmp_path: Path) -> None:
    rows = [{"content": "a = 1\n", "language": "python"}, {"text": "b"}, {"content": " \n"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _texts(tmp_path / "rows.jsonl") == [Text("a = 1\n", "python"), Text("b", "none")]
    folder = tmp_path / "src"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "x.py").write_text("no")
    (folder / "B.PY").write_text("c\n")
    (folder / "Makefile").write_text("d\n")
    (folder / "image.png").write_bytes(b"\x89PNG")
    assert _texts(folder, folder / "B.PY") == [Text("c\n", "py"), Text("d\n", "none"), Text("c\n", "py")]
    assert _texts(folder / "B.PY", characters=1) == [Text("c", "py", whole=False)]


def test_a_corpus_gives_its_heldout_part(tmp_path: Path) -> None:
    kept = [document("a = 1\n", path="a.py"), document("b = 2\n", path="b.py", language="c")]
    write_corpus(tmp_path / "corpus", {"train": [[document("t = 0\n")]], "heldout": [kept]})
    assert _texts(tmp_path / "corpus") == [Text("a = 1\n", "python"), Text("b = 2\n", "c")]


def test_a_draw_of_files_is_nested(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"{n}"}) + "\n" for n in range(50)))
    few, many = _texts(tmp_path / "rows.jsonl", files=5), _texts(tmp_path / "rows.jsonl", files=20)
    assert few == many[:5] and len(set(many)) == 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no text is in there"),
        ("{\n", "1: not JSON"),
        ("[]\n", "1: has no text"),
        ('{"content": 3}\n', "1: has no text"),
        ('{"content": "\\ud800"}\n', "1: holds half a surrogate pair"),
    ],
)
def test_what_is_no_text(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(CodegenError, match=message):
        _texts(tmp_path / "rows.jsonl")
    with pytest.raises(CodegenError, match="cannot be read"):
        _texts(tmp_path / "none.py")
