"""What a text's lexemes are, and whether a problem stands in it, said slowly: the reference of the fast ways."""

from __future__ import annotations

import re
from dataclasses import dataclass

from codegen25.data.lexemes import KEYWORDS

ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("&#34;", '"'), ("&#39;", "'"), ("&amp;", "&"))
LEXEME = re.compile(r"[A-Za-z0-9_]+|[!-~]")
NO_SIGNS = set("(),;\\'\"`#")


@dataclass(frozen=True)
class Lexeme:
    text: str
    name: bool
    commented: bool

    def is_word(self) -> bool:
        return self.text[0].isalnum() or self.text[0] == "_"


def meant(escape: str) -> str:
    code = {"n": 10, "r": 13, "t": 9}.get(escape[1]) or int(escape[2:], 16)
    return ("\v" if code in (10, 13) else chr(code) if 32 < code < 127 else " ").rjust(len(escape))


def lexemes(text: str, *, slashes: bool = False) -> list[Lexeme]:
    """Every lexeme of the text, line by line."""
    for entity, sign in ENTITIES:
        text = text.replace(entity, sign.ljust(len(entity)))
    text = re.sub(r"\\(?:[nrt]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})", lambda found: meant(found[0]), text)
    comment = re.compile(r"""(?:^|(?<=[\0 \t"']))""" + ("(?:#|//)" if slashes else "#"))
    found: list[Lexeme] = []
    for line in re.split(r"[\n\r\v]", text):
        mark = comment.search(line)
        for one in LEXEME.finditer(line):
            if one[0] not in NO_SIGNS:
                before = [lexeme.text.lower() for lexeme in found[-2:]]
                attribute = before[-1:] == ["."] and before[:1] != ["self"]
                name = not (one[0][0].isdigit() or one[0].lower() in KEYWORDS.lower().split() or attribute)
                is_word = one[0][0].isalnum() or one[0][0] == "_"
                found.append(Lexeme(one[0], name and is_word, mark is not None and one.start() >= mark.start()))
    return found


def code(text: str, *, slashes: bool = False) -> list[list[Lexeme]]:
    """The views of a text's code: without `self.` and zeros beside a point; and without comments."""
    whole = lexemes(text, slashes=slashes)
    low = [one.text.lower() for one in whole]
    kept = []
    for at, one in enumerate(whole):
        selfish = low[at : at + 2] == ["self", "."] or low[max(at - 1, 0) : at + 1] == ["self", "."]
        beside = low[at] == "0" and "." in (low[at - 1 : at] + low[at + 1 : at + 2])
        if not selfish and not beside:
            kept.append(one)
    bare = [one for one in kept if not one.commented]
    return [kept, bare] if any(one.commented for one in whole) else [kept]


def stands(needle: list[str], texts: list[str]) -> bool:
    return any(texts[at : at + len(needle)] == needle for at in range(len(texts) - len(needle) + 1))


def low(lexemes: list[Lexeme]) -> list[str]:
    return [one.text.lower() for one in lexemes]


def words(text: str) -> list[str]:
    return low([one for one in lexemes(text) if one.is_word()])


def stands_renamed(needle: list[Lexeme], fixed: set[str], whole: list[Lexeme]) -> bool:
    """Whether one renaming of names, each to its own, leads from the needle to a part of the whole."""
    for at in range(len(whole) - len(needle) + 1):
        there: dict[str, str] = {}
        back: dict[str, str] = {}
        for one, other in zip(needle, whole[at : at + len(needle)], strict=True):
            if one.name and one.text not in fixed:
                same = other.name and there.setdefault(one.text, other.text) == other.text
                if not same or back.setdefault(other.text, one.text) != one.text:
                    break
            elif one.text.lower() != other.text.lower():
                break
        else:
            return True
    return False
