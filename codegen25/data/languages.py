"""Which programming language a file is in, by its path and content, in StarCoderData's names.

Linguist's rules decide, as go-enry ports them; what they are known to get wrong is put right here. Languages that
StarCoderData leaves out, plain text and tables are none.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from functools import cache
from typing import Any

# StarCoderData's 86 languages, and the two data formats that it has beside them.
LANGUAGES = frozenset([
    "ada", "agda", "alloy", "antlr", "applescript", "assembly", "augeas", "awk", "batchfile", "bluespec", "c",
    "c++", "c-sharp", "clojure", "cmake", "coffeescript", "common-lisp", "css", "cuda", "dart", "dockerfile",
    "elixir", "elm", "emacs-lisp", "erlang", "f-sharp", "fortran", "glsl", "go", "groovy", "haskell", "html",
    "idris", "isabelle", "java", "java-server-pages", "javascript", "julia", "kotlin", "lean", "literate-agda",
    "literate-coffeescript", "literate-haskell", "lua", "makefile", "maple", "markdown", "mathematica", "matlab",
    "ocaml", "pascal", "perl", "php", "powershell", "prolog", "protocol-buffer", "python", "r", "racket",
    "restructuredtext", "rmarkdown", "ruby", "rust", "sas", "scala", "scheme", "shell", "smalltalk", "solidity",
    "sparql", "sql", "stan", "standard-ml", "stata", "systemverilog", "tcl", "tcsh", "tex", "thrift",
    "typescript", "verilog", "vhdl", "visual-basic", "xslt", "yacc", "zig", "json", "yaml",
])  # fmt: skip
# Linguist tells apart what StarCoderData keeps together, or has another name for it.
_NAMES = {
    "C#": "c-sharp", "F#": "f-sharp", "TSX": "typescript", "Fortran Free Form": "fortran", "Bison": "yacc",
    "Unix Assembly": "assembly", "Motorola 68K Assembly": "assembly", "PLpgSQL": "sql", "PLSQL": "sql", "TSQL": "sql",
    "SQLPL": "sql", "Lean 4": "lean", "Wolfram Language": "mathematica", "JSON with Comments": "json",
    "Gradle": "groovy", "Isabelle ROOT": "isabelle", "VBA": "visual-basic", "Visual Basic .NET": "visual-basic",
    "Visual Basic 6.0": "visual-basic", "Raku": "perl",
}  # fmt: skip
# Linguist's rules look at the first lines and at words; the rest of a long file only costs time.
MAX_CHARACTERS = 50_000
_PROLOG = re.compile(r"^(?!\s*#)[^\n\"'$]*:-", re.M)
_PERL = re.compile(r"^\s*(?:use (?:strict|warnings|[A-Z]\w*|v?5)|package [\w:]+;|sub \w+|my [$@%(]|#!.*perl)", re.M)
_SMALLTALK = re.compile(r"^!\s*[\w ]+ methodsFor: |^\w[\w ]* (?:subclass|methodsFor): [#']", re.M)
_SHARP = re.compile(
    r"^\s*(?:using [\w.= ]+;|namespace [\w.]+|\[assembly:|(?:public|internal|private|sealed|static) )", re.M
)


@cache
def _enry() -> Any:
    # Loaded where it is used: its Go runtime does not live on in a forked process.
    import enry

    return enry


def detect(path: str, text: str) -> str | None:
    """The language of a file, one of LANGUAGES; None for any other, and for what is no program text."""
    head = text[:MAX_CHARACTERS]
    ending = path.rpartition(".")[2].lower() if "." in path.rpartition("/")[2] else ""
    corrected = _corrected(ending, head)
    if corrected:
        return corrected
    # The library takes C strings: a path ends at a zero byte.
    name = path.encode("utf-8", "replace").decode().replace("\0", "_")
    found = _enry().get_language(name, head.encode("utf-8", "replace"))
    language = _NAMES.get(found) or found.lower().replace(" ", "-")
    return language if language in LANGUAGES else None


def _corrected(ending: str, text: str) -> str | None:
    """Endings that several languages share, of which Linguist's statistics often choose a rare one."""
    if ending == "sql":
        return "sql"
    if ending == "mpl":
        return "maple"
    if ending == "pl":
        return "prolog" if _PROLOG.search(text) and not _PERL.search(text) else "perl"
    if ending == "cs":
        return "smalltalk" if _SMALLTALK.search(text) and not _SHARP.search(text) else "c-sharp"
    return None


def known(name: str) -> bool:
    """Whether `detect` can answer with this name."""
    return name in LANGUAGES


def nearest(name: str) -> str:
    """Words for a person who gave a name that is not known."""
    close = get_close_matches(name, sorted(LANGUAGES), n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "names are those of StarCoderData, such as python or c-sharp"
