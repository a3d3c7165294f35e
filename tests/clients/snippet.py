"""Prints the block of code in one language below a heading of docs/clients.md: `snippet.py HEADING LANGUAGE`."""

import re
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs/clients.md"


def main(heading, language):
    sections = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)
    section = next(part for part in sections if part.split("\n")[0] == heading)
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    print(block, end="")


main(*sys.argv[1:])
