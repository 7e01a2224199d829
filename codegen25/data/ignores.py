"""What .gitignore files leave out, as git reads them: the last pattern of the nearest file that matches decides.

Patterns are matched by bytes and in linear time: a folder that somebody else made cannot make a build stand still.
A path inside an ignored folder is ignored, so folders are asked about before what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_CLASSES = {
    b"alnum": rb"0-9A-Za-z", b"alpha": rb"A-Za-z", b"blank": rb" \t", b"cntrl": rb"\x00-\x1f\x7f", b"digit": rb"0-9",
    b"graph": rb"!-~", b"lower": rb"a-z", b"print": rb" -~", b"punct": rb"!-/:-@\[-`{-~", b"space": rb" \t-\r",
    b"upper": rb"A-Z", b"xdigit": rb"0-9A-Fa-f",
}  # fmt: skip
# A bracket expression: a first ] is an ordinary character in it.
_BRACKET = re.compile(rb"\[([!^]?+)(\]?+(?:\\.|\[:[^\]]*:\]|\[(?!:[^\]]*:\])|[^\]\\\[])*)\]", re.DOTALL)
_ITEM = re.compile(rb"\[:([^\]]*):\]|(\\.|.)(?:-(\\.|.))?", re.DOTALL)
_NOTHING = b"(?!)"


@dataclass(frozen=True)
class Pattern:
    """A line of a .gitignore: the segments of a path that it matches, None standing for `**`, any number of them."""

    ignores: bool
    folders_only: bool
    segments: tuple[re.Pattern[bytes] | None, ...]

    def matches(self, parts: list[bytes], is_folder: bool) -> bool:
        """Whether this very path, relative to the .gitignore's folder, is meant; what lies in it is not asked."""
        return (is_folder or not self.folders_only) and _matches(self.segments, parts)


def _matches(segments: tuple[re.Pattern[bytes] | None, ...], parts: list[bytes]) -> bool:
    """As a wildcard matches a string. Only the last `**` ever has to be tried again, one segment further."""
    at = part = retry_part = 0
    retry = -1
    while part < len(parts):
        if at < len(segments) and (segment := segments[at]) is None:
            retry, retry_part, at = at, part, at + 1
        elif at < len(segments) and segment and segment.fullmatch(parts[part]):
            at, part = at + 1, part + 1
        elif retry >= 0:
            retry_part += 1
            at, part = retry + 1, retry_part
        else:
            return False
    return all(segment is None for segment in segments[at:])


def parse(line: bytes) -> Pattern | None:
    """The pattern of a line; None for a comment, a blank line, or one that git cannot read either."""
    text = re.sub(rb"((?:^|[^\\])(?:\\\\)*) +$", rb"\1", line.removesuffix(b"\r")) if line.strip(b" \r") else b""
    if not text or text.startswith(b"#"):
        return None
    ignores = not text.startswith(b"!")
    text = text.removeprefix(b"!")
    folders_only, text = text.endswith(b"/"), text.removesuffix(b"/")
    if not text:
        return None
    pieces = text.removeprefix(b"/").split(b"/")
    try:
        segments = [None if len(piece) > 1 and not piece.strip(b"*") else _segment(piece) for piece in pieces]
    except ValueError:
        return None
    if b"/" not in text:  # a name alone, at any depth
        segments = [None, segments[0] or _segment(b"*")]
    elif segments[-1] is None:  # what is in the folder, not the folder itself
        segments.append(_segment(b"*"))
    return Pattern(ignores, folders_only, tuple(segments))


def _segment(glob: bytes) -> re.Pattern[bytes]:
    """One name with *, ? and [] as an expression; what follows each star is looked for once, at its first place.

    Raises ValueError for a bracket or an escape that does not end.
    """
    pieces = [b""]
    at = 0
    while at < len(glob):
        end = at + 1
        if glob[at:end] == b"*":
            pieces.append(b"")
        elif glob[at:end] == b"?":
            pieces[-1] += b"."
        elif glob[at:end] == b"[":
            bracket = _BRACKET.match(glob, at)
            if not bracket:
                raise ValueError("a bracket without an end")
            pieces[-1] += _bracket(bracket[1], bracket[2])
            end = bracket.end()
        elif glob[at:end] == b"\\":
            end = at + 2
            if end > len(glob):
                raise ValueError("an escape without a character")
            pieces[-1] += re.escape(glob[at + 1 : end])
        else:
            pieces[-1] += re.escape(glob[at:end])
        at = end
    first, *between = pieces
    last = b".*" + between.pop() if between else b""
    return re.compile(first + b"".join(b"(?>.*?%b)" % piece for piece in between if piece) + last, re.DOTALL)


def _bracket(negated: bytes, content: bytes) -> bytes:
    """The content of a bracket expression as one of Python's."""
    members = b""
    for item in _ITEM.finditer(content):
        if item[1] is not None:
            if item[1] not in _CLASSES:
                raise ValueError("no such class of characters")
            members += _CLASSES[item[1]]
            continue
        low, high = item[2][-1], (item[3] or item[2])[-1]
        members += b"\\x%02x" % low
        if low < high:
            members += b"-\\x%02x" % high
    if not members:
        return b"." if negated else _NOTHING
    return b"[%b%b]" % (b"^" if negated else b"", members)


class Ignores:
    """All .gitignore files of a tree; `read` gives the bytes of the one in a folder ("" is the root), b"" for none."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._files: dict[str, list[Pattern]] = {}

    def covers(self, path: str, is_folder: bool) -> bool:
        """Whether a path, POSIX and relative to the root, is ignored; no folder above it is."""
        parts = path.encode("utf-8", "surrogateescape").split(b"/")
        folder = path
        for depth in range(len(parts) - 1, -1, -1):
            folder = folder.rpartition("/")[0]
            for pattern in self._patterns(folder):
                if pattern.matches(parts[depth:], is_folder):
                    return pattern.ignores
        return False

    def _patterns(self, folder: str) -> list[Pattern]:
        """The patterns of a folder's file, the last one first."""
        if folder not in self._files:
            lines = self._read(folder).removeprefix(b"\xef\xbb\xbf").split(b"\n")
            self._files[folder] = [pattern for line in reversed(lines) if (pattern := parse(line))]
        return self._files[folder]
