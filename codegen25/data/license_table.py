"""What is decided of whole sources, a line each: `python -m codegen25.data.license_table SOURCE…`.

`docs/licences.md` holds its answers beside those of a person.
The columns are name, version, licence or reason, kind of evidence, confidence, file, and the words, parted by tabs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from codegen25.data.describe import describe
from codegen25.data.licenses import Licenses
from codegen25.data.policy import Policy, read_policy
from codegen25.data.readers import open_source
from codegen25.errors import CodegenError, say


def lines(arguments: list[str], policy: Policy) -> Iterator[str]:
    """A line for each source that the arguments name, in their order. Raises CodegenError for what is no source."""
    for source in (source for argument in arguments for source in describe(argument)):
        reader = open_source(source, Path())
        found = Licenses(reader.metadata(), reader.license_files(), policy, source.license).decide("", "", "")
        evidence = found.evidence
        words = [source.name, source.version, found.spdx or f"- ({found.reason})", evidence.kind]
        yield "\t".join([*words, f"{evidence.confidence:.2f}", evidence.file, evidence.text])


def main() -> int:
    """Print the lines; 1 when an argument is no source."""
    try:
        for line in lines(sys.argv[1:], read_policy("permissive")):
            print(line)
    except CodegenError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
