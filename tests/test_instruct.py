"""Instructions as examples: what a server would render, then the response, of which nothing else is learned."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import hostile
import pytest
import tiny
from hypothesis import given
from hypothesis import strategies as st

from codegen25.chat import HEADERS, Message, content, render
from codegen25.errors import CodegenError
from codegen25.tokenizer import Tokenizer, family
from codegen25.train.instruct import Instructions, of_messages, read_instructions
from codegen25.train.objective import Example

TOKENIZERS = pytest.mark.parametrize("tokenizer", [family(), tiny.tokenizer()], ids=["family", "tiny"])
texts = st.one_of(hostile.texts.filter(lambda text: len(text) < 5000), st.just("### Response\nx\n\n"))
responses = texts.filter(lambda text: content(text).strip())


def example(tokenizer: Tokenizer, messages: list[Message], window: int) -> Example:
    made = Instructions(of_messages(messages), tokenizer)
    return made.example(len(made) - 1, random.Random(0), window)


@TOKENIZERS
@given(texts, responses)
def test_the_prompt_and_then_the_response(tokenizer: Tokenizer, prompt: str, response: str) -> None:
    one = example(tokenizer, [Message("user", prompt), Message("assistant", response)], 1 << 20)
    prompt_ids = tokenizer.encode(render([Message("user", prompt)]))
    assert one.ids == [*prompt_ids, *tokenizer.encode(content(response)), tokenizer.eot]
    assert one.learned == [False] * len(prompt_ids) + [True] * (len(one.ids) - len(prompt_ids))
    assert one.left_out == 0 and one.kind == one.asked == "instruct"
    assert not any(map(tokenizer.is_control, one.ids[:-1])), "control names in a record stay text"


@TOKENIZERS
@given(st.lists(st.tuples(texts, texts), max_size=2), texts, responses, st.sampled_from([64, 100, 300]))
def test_what_does_not_fit_is_counted(
    tokenizer: Tokenizer, before: list[tuple[str, str]], prompt: str, response: str, window: int
) -> None:
    said = [Message(role, text) for pair in before for role, text in zip(("user", "assistant"), pair, strict=True)]
    said = [one for one in said if one.role == "user" or content(one.content).strip()]
    said.append(Message("user", prompt))
    one = example(tokenizer, [*said, Message("assistant", response)], window)
    assert 0 < len(one.ids) == len(one.learned) <= window
    first = one.learned.index(True)
    assert one.learned == sorted(one.learned), "the response is learned, to its end"
    rendered, wanted = render(said), content(response)
    shown, answer = tokenizer.decode(one.ids[:first]), one.ids[first:]
    assert shown.endswith(f"{HEADERS['assistant']}\n") and shown.startswith(tuple(HEADERS.values()))
    if answer[-1] == tokenizer.eot:
        assert tokenizer.decode(answer[:-1]) == wanted
    else:
        kept = tokenizer.decode_bytes(answer).decode(errors="ignore")
        assert wanted.startswith(kept) and (one.left_out > 0 or kept == wanted)
    whole = len(tokenizer.encode(rendered)) + len(tokenizer.encode(wanted)) < window
    assert (one.left_out == 0 and shown == rendered) if whole else one.ids[:first] != [] and one.left_out >= 0


def test_a_long_prompt_loses_its_beginning_and_keeps_its_header() -> None:
    prompt = "".join(f"line {n}\n" for n in range(200))
    one = example(family(), [Message("user", prompt), Message("assistant", "done")], 128)
    shown = family().decode(one.ids[: one.learned.index(True)])
    assert shown.startswith("### Instruction\nline 1") and shown.endswith("line 199\n\n### Response\n")
    assert len(one.ids) > 115 and one.ids[-1] == family().eot
    assert one.left_out == len(render([Message("user", prompt)])) - len(shown)


def test_every_response_is_an_example_behind_what_was_said_before_it() -> None:
    said = [Message("system", "Be brief."), Message("user", "1"), Message("assistant", "one")]
    said += [Message("user", "2"), Message("assistant", "two")]
    first, second = of_messages(said)
    assert (first.prompt, first.response) == (render(said[:2]), "one")
    assert (second.prompt, second.response) == (render(said[:4]), "two")
    assert "one" in second.prompt


def write(folder: Path, *records: Any) -> Path:
    path = folder / "instructions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def test_a_file_of_both_forms(tmp_path: Path) -> None:
    pair = {"prompt": "Add.", "response": "a + b", "license": "MIT"}
    talk = {"messages": [{"role": "user", "content": "Add."}, {"role": "assistant", "content": "a + b"}]}
    found = read_instructions(write(tmp_path, pair, talk))
    assert len(found) == 2 and found[0] == found[1]
    made, other = Instructions(found, family()), Instructions(found[:1], family())
    assert len(made) == 2 and len(made.fingerprint()) == 64 and made.fingerprint() != other.fingerprint()
    assert made.size(0) > 5


@pytest.mark.parametrize(
    "record, says",
    [
        ({"prompt": "x"}, "it has neither messages nor a prompt and a response"),
        ([], "it has neither"),
        ({"prompt": "x", "response": 3}, "message 2: its content must be text"),
        ({"prompt": "x", "response": " \n"}, "a response is empty"),
        ({"prompt": "x", "response": "\ud800"}, "lone surrogate"),
        ({"messages": [{"role": "user", "content": "x"}]}, "none is the assistant's"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "the last one must be the user's"),
        ({"messages": "x"}, "messages: must be a list"),
    ],
)
def test_no_instruction(tmp_path: Path, record: Any, says: str) -> None:
    path = write(tmp_path, {"prompt": "x", "response": "y"}, record)
    with pytest.raises(CodegenError, match=rf"instructions.jsonl:2: no instruction \(.*{says}.*\); correct or remove"):
        read_instructions(path)


def test_no_file_nothing_in_it_and_no_json(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match="no such file"):
        read_instructions(tmp_path / "absent")
    with pytest.raises(CodegenError, match="holds no instructions"):
        read_instructions(write(tmp_path))
    path = tmp_path / "broken"
    path.write_bytes(b'{"prompt": "x", "response": "y"}\n\xff\n')
    with pytest.raises(CodegenError, match="broken:2: no instruction"):
        read_instructions(path)
