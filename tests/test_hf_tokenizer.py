"""The Hugging Face folders we write and read: ids equal to Hugging Face's on arbitrary text, and hostile folders."""

from __future__ import annotations

import copy
import json
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from codegen25.errors import CodegenError
from codegen25.model.hf_tokenizer import build_tokenizer_json, missing_bytes, tokenizer_json, write_tokenizer
from codegen25.tokenizer import Tokenizer, family, from_byte_characters, from_folder, to_byte_characters

STANDARD_LIBRARY = Path(sysconfig.get_paths()["stdlib"])
CONTROL_NAMES = ["<|endoftext|>", "<sep>", "<eom>", "<mask_1>", "<mask_2>"]
SPLIT = r"\p{N}{1,3}| ?[^\s\p{N}]+|\s+"

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
CODE = st.lists(
    st.sampled_from(["'re", "'", "r", " ", "  ", "    ", "\t", "\n", "\r\n", "\u00a0", "7", "42", "²", "Ⅷ"])
    | st.sampled_from(["def", " x", "é", "π", "👍🏽", "漢", "()", "_", "=", "\0", "\x1c", "\x85", *CONTROL_NAMES]),
    max_size=25,
).map("".join)  # fmt: skip
ANY = TEXT | CODE | st.integers(1, 100).map(lambda n: " " * n) | st.integers(1, 40).map(lambda n: "\t" * n)


def huggingface(folder: Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))


def sources(count: int | None) -> list[str]:
    files = [file for file in sorted(STANDARD_LIBRARY.rglob("*.py")) if "site-packages" not in file.parts]
    if count is not None:
        files = random.Random(0).sample(files, count)
    return [file.read_text(encoding="utf-8", errors="ignore") for file in files]


@pytest.fixture(scope="module")
def family_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def family_oracle(family_folder: Path) -> tokenizers.Tokenizer:
    return huggingface(family_folder)


def trained(steps: list[Any], names: list[str]) -> dict[str, Any]:
    """A small byte-level BPE that Hugging Face's own trainer made of some sources of the standard library."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=names, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(sources(30), trainer)
    definition: dict[str, Any] = json.loads(tokenizer.to_str())
    return definition


def write(folder: Path, definition: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(definition), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def digits_definition() -> dict[str, Any]:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return trained([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)], CONTROL_NAMES)


@pytest.fixture(scope="module")
def small_folders(tmp_path_factory: pytest.TempPathFactory, digits_definition: dict[str, Any]) -> dict[str, Path]:
    """Folders by kind: digits, digits with the ids shuffled, and a split of its own."""
    root = tmp_path_factory.mktemp("small")
    vocab = digits_definition["model"]["vocab"]
    ids = list(range(len(vocab)))
    random.Random(0).shuffle(ids)
    shuffled = copy.deepcopy(digits_definition)
    shuffled["model"]["vocab"] = {token: ids[id] for token, id in vocab.items()}
    shuffled["added_tokens"] = [token | {"id": ids[token["id"]]} for token in shuffled["added_tokens"]]
    split = pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior="isolated")
    own = trained([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)], CONTROL_NAMES)
    return {
        "digits": write(root / "digits", digits_definition),
        "shuffled": write(root / "shuffled", shuffled),
        "split": write(root / "split", own),
    }


# ------------------------------------------------------------------------------------------------ the family's own


@given(ANY)
@settings(max_examples=400, deadline=None)
def test_family_equals_huggingface(family_oracle: tokenizers.Tokenizer, text: str) -> None:
    ids = family_oracle.encode(text).ids
    assert ids == family().encode(text, allow_control=True)
    assert family_oracle.decode(ids, skip_special_tokens=False) == text


def test_family_equals_huggingface_on_sources(family_oracle: tokenizers.Tokenizer) -> None:
    for text in sources(100):
        assert family_oracle.encode(text).ids == family().encode(text, allow_control=True)


@pytest.mark.slow
def test_family_equals_huggingface_on_the_standard_library(family_oracle: tokenizers.Tokenizer) -> None:
    for text in sources(None):
        assert family_oracle.encode(text).ids == family().encode(text, allow_control=True)


def test_family_comes_back_from_its_folder(family_folder: Path) -> None:
    again = from_folder(family_folder)
    assert again.control == family().control
    assert again.pattern == family().pattern
    assert [again.token_bytes(id) for id in range(51200)] == [family().token_bytes(id) for id in range(51200)]
    for text in sources(10):
        assert again.encode(text) == family().encode(text)


def test_every_id_is_in_the_file(family_folder: Path) -> None:
    definition = tokenizer_json()
    assert sorted(definition["model"]["vocab"].values()) == list(range(51200))
    assert {token["content"]: token["id"] for token in definition["added_tokens"]} == family().control
    assert sorted(path.name for path in family_folder.iterdir()) == [
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


@pytest.mark.parametrize("trust_remote_code", [False, True])
@pytest.mark.parametrize("with_config", [False, True])
def test_transformers_loads_it_without_custom_code(tmp_path: Path, with_config: bool, trust_remote_code: bool) -> None:
    transformers = pytest.importorskip("transformers")
    write_tokenizer(tmp_path)
    if with_config:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 51200}))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=trust_remote_code)
    assert len(theirs) == 51200
    assert {theirs.bos_token, theirs.eos_token, theirs.unk_token, theirs.pad_token} == {"<|endoftext|>"}
    text = "this is a prefix<mask_1>suffix<|endoftext|><sep><mask_1>"
    ids = family().encode(text, allow_control=True)
    assert theirs(text).input_ids == ids
    assert theirs(text, return_tensors="np").input_ids.tolist() == [ids]
    assert theirs(text, split_special_tokens=True).input_ids == family().encode(text)
    # The card passes a keyword that only the publisher's class knew.
    assert theirs.decode(ids, skip_special_tokens=False, truncate_before_pattern=[r"\n\n^#", "^'''"]) == text
    assert theirs.decode(ids, skip_special_tokens=True) == "this is a prefixsuffix"
    spaced = "don 't f ( ) . x , y !\n\t\tπ  "
    assert theirs.decode(family().encode(spaced)) == spaced
    assert theirs([spaced, "x"], padding=True).input_ids[1][1:] == [50256] * (len(family().encode(spaced)) - 1)


# ------------------------------------------------------------------------------------------------- a folder's own


@pytest.mark.parametrize("kind", ["digits", "shuffled", "split"])
def test_a_folders_own_equals_huggingface(small_folders: dict[str, Path], kind: str) -> None:
    ours, theirs = from_folder(small_folders[kind]), huggingface(small_folders[kind])
    assert ours.n_vocab == theirs.get_vocab_size()

    @given(ANY)
    @settings(max_examples=200, deadline=None)
    def equal(text: str) -> None:
        assert ours.encode(text, allow_control=True) == theirs.encode(text).ids
        assert not any(map(ours.is_control, ours.encode(text)))
        assert ours.decode(ours.encode(text)) == text

    equal()
    for text in sources(40):
        assert ours.encode(text, allow_control=True) == theirs.encode(text).ids


def test_sentinels_are_found_by_name(small_folders: dict[str, Path]) -> None:
    tokenizer = from_folder(small_folders["shuffled"])
    vocab = huggingface(small_folders["shuffled"]).get_vocab()
    found = [tokenizer.eot, tokenizer.sep, tokenizer.eom, *tokenizer.masks]
    assert found == [vocab[name] for name in CONTROL_NAMES]
    assert all(tokenizer.token_bytes(tokenizer.control[name]) == name.encode() for name in CONTROL_NAMES)
    assert {tokenizer.token_bytes(id) for id in tokenizer.tokens_starting_with(b"<sep")} == set()


def test_control_tokens_outside_the_vocabulary(tmp_path: Path, digits_definition: dict[str, Any]) -> None:
    """As in nano: some control tokens below the vocabulary's ids, the rest and some bytes above."""
    lacking = {to_byte_characters(bytes([byte])) for byte in (0x04, 0xF1)}
    known = sorted(digits_definition["model"]["vocab"].items(), key=lambda item: item[1])
    tokens = [token for token, _ in known if token not in lacking | set(CONTROL_NAMES[1:])]
    with pytest.raises(CodegenError, match="no token for 2 bytes"):
        build_tokenizer_json(tokens, [], {"<|endoftext|>": 0}, digits=True)
    tokens += missing_bytes(tokens)
    assert set(tokens[-2:]) == lacking
    control = {"<|endoftext|>": 0} | {name: len(tokens) + n for n, name in enumerate(CONTROL_NAMES[1:])}
    merges = [(left, right) for left, right in digits_definition["model"]["merges"]]
    write(tmp_path, build_tokenizer_json(tokens, merges, control, digits=True))
    ours, theirs = from_folder(tmp_path), huggingface(tmp_path)
    assert ours.n_vocab == theirs.get_vocab_size() == len(tokens) + 4
    for text in [*sources(10), "\x04\U00040000 x1<mask_1>y<|endoftext|><sep>"]:
        assert ours.encode(text, allow_control=True) == theirs.encode(text).ids
        assert ours.decode(ours.encode(text)) == text


@pytest.mark.parametrize("control", [{"<sep>": 300}, {"<sep>": 5}])
def test_the_builder_refuses_holes_and_collisions(control: dict[str, int]) -> None:
    tokens = [to_byte_characters(bytes([byte])) for byte in range(256)]
    with pytest.raises(CodegenError, match="collide or leave holes"):
        build_tokenizer_json(tokens, [], control, digits=False)


def test_a_folders_own_is_written_again_as_it_was(tmp_path: Path, small_folders: dict[str, Path]) -> None:
    tokenizer = from_folder(small_folders["digits"])
    write_tokenizer(tmp_path / "copy", tokenizer)
    before = json.loads((small_folders["digits"] / "tokenizer.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "copy" / "tokenizer.json").read_text(encoding="utf-8")) == before
    assert from_folder(tmp_path / "copy").control == tokenizer.control


def test_byte_characters() -> None:
    assert to_byte_characters(b" a\n\xff") == "ĠaĊÿ"
    assert {to_byte_characters(bytes([byte])) for byte in range(256)} == set(pre_tokenizers.ByteLevel.alphabet())
    assert from_byte_characters(to_byte_characters(bytes(range(256)))) == bytes(range(256))


@pytest.mark.parametrize("layout", ["code", "config"])
def test_the_publishers_layout(tmp_path: Path, layout: str) -> None:
    if layout == "code":
        (tmp_path / "tokenization_codegen25.py").write_text("raise SystemExit('never imported')")
    else:
        (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "CodeGen25Tokenizer"}')
    assert from_folder(tmp_path) is family()


# ------------------------------------------------------------------------------------------------- hostile folders


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def apply(definition: dict[str, Any]) -> dict[str, Any]:
        definition = copy.deepcopy(definition)
        change(definition)
        return definition

    return apply


def drop_added(name: str) -> Callable[[dict[str, Any]], object]:
    def change(definition: dict[str, Any]) -> None:
        definition["added_tokens"] = [token for token in definition["added_tokens"] if token["content"] != name]

    return change


BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "model type": (lambda d: d["model"].update(type="Unigram"), "model type is Unigram"),
    "normalizer": (lambda d: d.update(normalizer={"type": "NFC"}), "normalizer, NFC"),
    "prefix space": (lambda d: d.update(pre_tokenizer=BYTE_LEVEL | {"add_prefix_space": True}), "prefix space"),
    "no pre-tokenizer": (lambda d: d.update(pre_tokenizer=None), "pre-tokenizer"),
    "other pre-tokenizer": (lambda d: d.update(pre_tokenizer={"type": "Metaspace"}), "Metaspace"),
    "whole digits": (lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(individual_digits=False), "Digits"),
    "empty sequence": (lambda d: d["pre_tokenizer"].update(pretokenizers=[]), "pre-tokenizer"),
    "bad pattern": (
        lambda d: d.update(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
                    BYTE_LEVEL | {"use_regex": False},
                ],
            }
        ),
        "not a valid tokenizer",
    ),
    "byte fallback": (lambda d: d["model"].update(byte_fallback=True), "byte_fallback"),
    "ignored merges": (lambda d: d["model"].update(ignore_merges=True), "ignore_merges"),
    "a missing byte": (lambda d: d["model"]["vocab"].pop("Ċ"), "the byte 0x0a"),
    "an unknown merge": (lambda d: d["model"]["merges"].append(["zz", "qq"]), "not a valid tokenizer"),
    "a merge twice": (lambda d: d["model"]["merges"].append(d["model"]["merges"][0]), "two merges"),
    "a strange character": (lambda d: d["model"]["vocab"].update({"漢": 1500}), "not a valid tokenizer"),
    "ids as text": (lambda d: d["model"]["vocab"].update(a="7"), "not a valid tokenizer"),
    "a negative id": (lambda d: d["model"]["vocab"].update(a=-1), "not a valid tokenizer"),
    "a shared id": (lambda d: d["model"]["vocab"].update(a=9), "share one id"),
    "no <sep>": (drop_added("<sep>"), "lacks the control token <sep>"),
    "no <eom>": (drop_added("<eom>"), "lacks the control token <eom>"),
    "no <mask_1>": (drop_added("<mask_1>"), "lacks the control token <mask_1>"),
    "no end": (drop_added("<|endoftext|>"), r"lacks the control token <\|endoftext\|>"),
    "stripping": (lambda d: d["added_tokens"][1].update(lstrip=True), "swallows the spaces"),
    "prefix of another": (lambda d: d["added_tokens"].append({"id": 1500, "content": "<sep>s"}), "begins another"),
    "no model": (lambda d: d.pop("model"), "not a valid tokenizer"),
    "a list as model": (lambda d: d.update(model=[1]), "not a valid tokenizer"),
    "null as vocab": (lambda d: d["model"].update(vocab=None), "not a valid tokenizer"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_supported_is_one_line(tmp_path: Path, digits_definition: dict[str, Any], name: str) -> None:
    change, message = REFUSED[name]
    write(tmp_path, changed(change)(digits_definition))
    with pytest.raises(CodegenError, match=message) as caught:
        from_folder(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_is_no_json_object(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(CodegenError, match=r"tokenizer\.json: not .*copy the file again"):
        from_folder(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(CodegenError, match=r"no tokenizer\.json in this folder"):
        from_folder(tmp_path)
    with pytest.raises(CodegenError, match="no such folder"):
        from_folder(tmp_path / "absent")
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(CodegenError, match=r"tokenizer_config\.json: not readable as JSON"):
        from_folder(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path, small_folders: dict[str, Path]) -> None:
    tokenizer: Tokenizer = from_folder(small_folders["digits"])
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CodegenError, match="cannot write the tokenizer here"):
        write_tokenizer(tmp_path / "file", tokenizer)
    assert (tmp_path / "file").read_text() == "in the way"
