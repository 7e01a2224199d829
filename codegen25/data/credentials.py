"""Where keys and passwords stand in a text. Wrong finds damage code, so what is a name, a sample or a hash is left.

Betterleaks reads all of a text; detect-secrets' patterns for what it does not know read the lines with their marks.
What a provider's own pattern finds counts unless it is a sample; what only stands behind a word such as "token" or
"password" must look random as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

import betterleaks

Kind = Literal["email", "ip", "key", "password"]


@dataclass(frozen=True)
class Span:
    """The characters from `start` to before `end`, what they are, and what is to stand there instead."""

    start: int
    end: int
    kind: Kind
    replacement: str


class Plugin(Protocol):
    """A detector of detect-secrets: gives the secrets of a line."""

    def analyze_string(self, string: str) -> Iterator[str]: ...


_GENERIC = frozenset(["generic-password", "generic-api-key"])
# As they are spelled in assignments; a search for each is faster than one that ignores case.
_KEYWORDS = (
    "password", "PASSWORD", "Password", "passwd", "PASSWD", "secret", "SECRET", "Secret", "api_key", "API_KEY",
    "apiKey", "ApiKey", "apikey", "api-key",
)  # fmt: skip
# Found here by rules of our own, which know where a block ends and what a sample is.
_OURS = frozenset(["private-key", "generic-credential-uri"])
# A word that a rule of this package looks for, so that it reads what its authors say is no secret too.
_ALLOW = ("leaks:allow", "leaks-allow")

_SAMPLE = re.compile(
    r"x{5,}|\*{3,}|\.{3}|[<>{}]|example|your[-_]|placeholder|redacted|abcdefgh|12345678|0{8,}", re.IGNORECASE
)
_GENERIC_SAMPLE = re.compile(
    r"your|sample|dummy|fake|change[-_]?me|insert|replace|pa?ss?w[o0]r?d|secret|test|mock|demo|abcdef|12345|qwerty|"
    r"[()\[\]\s]|^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
    re.IGNORECASE,
)
_HASH = re.compile(r"^(?:0x)?[0-9a-f]{32,}$", re.IGNORECASE)
_OF_HASH = re.compile(
    r"sha-?\d|md5|hash|digest|checksum|integrity|commit|revision|\brev\b|fingerprint|etag|blake|public|signature",
    re.IGNORECASE,
)
_SEGMENT = re.compile(r"[A-Za-z0-9]+")
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
MIN_CHANGES, MIN_CHANGE_SHARE, MIN_NAME_SHARE, MIN_DISTINCT = 3, 0.25, 0.3, 6

_USER_INFO = re.compile(
    r"://[^\s/:@\"'`<>{}$]{0,64}:([^\s/:@\"'`<>{}$*,;()\[\]\\|]{6,128})@(?=[\w\[])(?!localhost|127\.|example)"
)
_BLOCK = re.compile(r"-----(BEGIN|END) (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----")
# What may stand in a block: Base64, blank space, quotes and what joins strings, and lines such as "Version: 1".
# What may stand in a block: Base64, blank space, quotes and what joins strings, and lines such as "Version: 1".
_BODY = re.compile(
    r"(?:\\+[nrt]|[\s\"'`+,;|>#*=/.]|(?<=\n)[A-Za-z-]{4,20}: [^\n]{0,80}\n|[A-Za-z0-9+/=]{4,}|\\(?=\s))*"
)
_RUN = re.compile(r"(\\+[nrt]|^[A-Za-z-]{4,20}: [^\n]{0,80}$)|[A-Za-z0-9+/=]{4,}", re.MULTILINE)
MIN_RUN, MIN_BLOCK = 16, 40


def find_credentials(text: str) -> Iterator[Span]:
    """Keys and passwords, in no order; spans may overlap."""
    yield from _key_blocks(text)
    yield from _passwords_of_urls(text)
    for value, kind in {**_by_keyword(text), **_by_mark(text), **_by_betterleaks(text)}.items():
        yield from _everywhere(text, value, kind)


def _everywhere(text: str, value: str, kind: Kind) -> Iterator[Span]:
    """A secret is one wherever else it stands."""
    start = text.find(value)
    while start >= 0:
        yield Span(start, start + len(value), kind, f"<{kind.upper()}>")
        start = text.find(value, start + len(value))


def _by_betterleaks(text: str) -> dict[str, Kind]:
    """The secrets that Betterleaks finds, samples left out."""
    # Its strings are C's, which end at a NUL.
    findings = betterleaks.scan_string(text.replace("\0", " ").replace(*_ALLOW))
    lines = text.split("\n") if findings else []
    found: dict[str, Kind] = {}
    for finding in findings:
        line = lines[finding.location.start_line - 1]
        for value in _values(finding):
            if _is_generic(value, line) if finding.rule_id in _GENERIC else _is_key(value):
                found[value] = "password" if finding.rule_id == "generic-password" else "key"
    return found


def _values(finding: betterleaks.Finding) -> Iterator[str]:
    """What was found, line by line, and what belongs to it: the secret to an id, but neither a host nor a name."""
    if finding.rule_id not in _OURS:
        yield from (piece.strip() for piece in finding.match.value.split("\n"))
    for components in finding.component_sets:
        for component in components["components"]:
            if looks_random(value := component["match"]["value"]):
                yield value


def _is_key(value: str) -> bool:
    return len(value) >= 12 and not _SAMPLE.search(value)


def _is_generic(value: str, line: str) -> bool:
    """Whether a value behind a word such as "token" is a secret, and not a name, a sample, an identifier or a hash."""
    if len(value) < 8 or _SAMPLE.search(value) or _GENERIC_SAMPLE.search(value):
        return False
    if _OF_HASH.search(line) and (_HASH.match(value) or "-" in value):
        return False
    # Where nothing quotes it, a type or a variable may stand.
    name = value.isidentifier() and line[max(0, line.find(value) - 1)] not in "\"'`"
    return looks_random(value, MIN_NAME_SHARE if name else MIN_CHANGE_SHARE)


def looks_random(value: str, share: float = MIN_CHANGE_SHARE) -> bool:
    """Whether letters of both cases and digits follow each other as they seldom do in words, versions and names."""
    segments = _SEGMENT.findall(value)
    changes = sum(len(_PIECE.findall(segment)) - 1 for segment in segments)
    size = sum(map(len, segments))
    return changes >= max(MIN_CHANGES, share * size) and len(set(value)) >= MIN_DISTINCT


@cache
def _plugins() -> tuple[tuple[str, Plugin], ...]:
    """What detect-secrets knows beyond Betterleaks, with a mark that each find contains."""
    from detect_secrets.plugins.artifactory import ArtifactoryDetector
    from detect_secrets.plugins.aws import AWSKeyDetector
    from detect_secrets.plugins.mailchimp import MailchimpDetector
    from detect_secrets.plugins.square_oauth import SquareOAuthDetector
    from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
    from detect_secrets.plugins.twilio import TwilioKeyDetector

    aws, twilio = AWSKeyDetector(), TwilioKeyDetector()
    return (
        ("AKIA", aws), ("ASIA", aws), ("ABIA", aws), ("ACCA", aws), ("A3T", aws), ("aws", aws), ("AWS", aws),
        ("AC", twilio), ("SK", twilio),
        ("-us", MailchimpDetector()), (":AA", TelegramBotTokenDetector()), ("sq0csp-", SquareOAuthDetector()),
        ("AKC", ArtifactoryDetector()),
    )  # fmt: skip


def _lines_with(text: str, mark: str) -> Iterator[str]:
    """The lines in which a mark stands, of long ones what is near it."""
    at = text.find(mark)
    while at >= 0:
        yield text[max(0, at - 100) : at].rpartition("\n")[2] + text[at : at + 200].partition("\n")[0]
        at = text.find(mark, at + len(mark))


def _by_mark(text: str) -> dict[str, Kind]:
    """The secrets that detect-secrets finds in lines with a provider's mark, each a word by itself and random."""
    found: dict[str, Kind] = {}
    for mark, plugin in _plugins():
        for line in _lines_with(text, mark):
            for value in plugin.analyze_string(line):
                value = value.strip(" \"'=:")
                if re.search(rf"(?<![\w/+]){re.escape(value)}(?![\w/+=])", line) and _is_key(value) and _mixed(value):
                    found[value] = "key"
    return found


@cache
def _keyword_plugin() -> Callable[[str], Iterator[str]]:
    """What detect-secrets finds behind words such as "password", in quotes or, as in settings, without."""
    from detect_secrets.plugins.keyword import CONFIG_DENYLIST_REGEX_TO_GROUP, KeywordDetector

    plugin = KeywordDetector()

    def find(line: str) -> Iterator[str]:
        yield from plugin.analyze_string(line)
        yield from plugin.analyze_string(line, CONFIG_DENYLIST_REGEX_TO_GROUP)

    return find


def _by_keyword(text: str) -> dict[str, Kind]:
    """Short keys and those of hexadecimal digits, which Betterleaks often leaves, behind words for secrets."""
    found: dict[str, Kind] = {}
    for word in _KEYWORDS:
        for line in _lines_with(text, word):
            for value in _keyword_plugin()(line):
                value = (value.split() or [""])[0].strip(",;)")
                if _is_generic(value, line):
                    found[value] = "password" if word[0] in "pP" else "key"
    return found


def _mixed(value: str) -> bool:
    """Letters and digits, as these keys have; words in capitals have none."""
    return any(map(str.isdigit, value)) and looks_random(value)


def _passwords_of_urls(text: str) -> Iterator[Span]:
    """The passwords of `scheme://user:password@host`; words alone are samples."""
    for match in _USER_INFO.finditer(text):
        value = match[1]
        if not (_SAMPLE.search(value) or re.search(r"pass|pwd|secret|user|%s|%\(|[tT]est", value) or _is_word(value)):
            yield Span(*match.span(1), "password", "<PASSWORD>")


def _is_word(value: str) -> bool:
    return value.isalpha() and value[1:].islower()


def _key_blocks(text: str) -> Iterator[Span]:
    """What stands behind BEGIN PRIVATE KEY: a placeholder for the first run of Base64, nothing for the others.

    So lines stay where they were, and quotes around them too. Of a block without an end only long runs are the key's.
    """
    for match in _BLOCK.finditer(text):
        body = _BODY.match(text, match.end())
        if match[1] == "END" or body is None:
            continue
        ended = text.startswith("-----END ", body.end())
        runs = [run for run in _RUN.finditer(text, *body.span()) if not run[1]]
        long = [run for run in runs if len(run[0]) >= MIN_RUN]
        if sum(len(run[0]) for run in long) < MIN_BLOCK:
            continue
        for number, run in enumerate(runs if ended else long):
            yield Span(*run.span(), "key", "" if number else "<KEY>")
