"""What the tests of the manual read from its pages: sections, blocks and tables."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
# Not what "make docs" built.
PAGES = sorted(page for page in DOCS.rglob("*.rst") if "_build" not in page.parts)
NAMES = [str(page.relative_to(DOCS)) for page in PAGES]


@dataclass(frozen=True)
class Block:
    """A literal block: its language ("" after ``::``), its text, and the section and the paragraph that it follows."""

    language: str
    text: str
    section: str
    before: str

    @property
    def file(self) -> str:
        """The path that its first line or, failing that, the paragraph before it names; "" if none does."""
        first = re.match(r"# ([\w/]+\.py)\n", self.text)
        named = re.findall(r"``(/?[\w/@.-]+\.(?:py|service|timer))``", self.before)
        return first[1] if first else named[-1] if named else ""


def read(page: str) -> str:
    return (DOCS / f"{page}.rst").read_text(encoding="utf-8")


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def text_indent_of(line: str) -> int:
    """Return where the text of *line* begins, behind the sign of a list."""
    return len(re.match(r"\s*(?:(?:\*|\d+\.) +)?", line)[0])


def blocks(text: str) -> Iterator[Block]:
    """Yield the literal blocks of *text*, in order."""
    lines = text.splitlines()
    section = ""
    paragraph: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if not line.strip():
            continue
        if number < len(lines) and re.fullmatch(r"([-~=])\1{2,}", lines[number]):
            section = line.replace("``", "")
        directive = re.match(r"\s*\.\. code-block:: (\w+)$", line)
        if not directive:
            paragraph = [*paragraph, line] if lines[number - 2].strip() else [line]
            if not line.endswith("::") or line.lstrip().startswith(".."):
                continue
        inside = []
        while number < len(lines) and (not lines[number].strip() or indent_of(lines[number]) > text_indent_of(line)):
            inside.append(lines[number])
            number += 1
        block = textwrap.dedent("\n".join(inside)).strip("\n") + "\n"
        yield Block(directive[1] if directive else "", block, section, " ".join(paragraph))


def sections(text: str, rule: str) -> dict[str, str]:
    """Return the text under each heading that is underlined with *rule*, up to the next heading of any kind."""
    found = {}
    parts = re.split(r"^(\S.*)\n([-~=])\2{2,}$", text, flags=re.MULTILINE)
    for heading, kind, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        if kind == rule:
            found[heading] = body
    return found


def first_cells(text: str) -> list[str]:
    """Return the literals in the first column of every table in *text*."""
    cells = []
    for table in re.findall(r"^=+(?:  +=+)+\n.*?\n=+(?:  +=+)+\n(.*?)\n=+(?:  +=+)+$", text, re.MULTILINE | re.DOTALL):
        for row in table.splitlines():
            cells += re.findall(r"``([^`]+)``", re.split(r" {2,}", row)[0])
    return cells


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield name and arguments of each ``manage.py`` command in literal text, as they are typed."""
    import shlex

    literals = [block.text for block in blocks(text) if block.language in ("", "ini", "text")]
    literals += re.findall(r"``(python manage\.py [^`]+)``", " ".join(text.split()))
    for literal in literals:
        for line in re.findall(r"manage\.py (.+)", literal):
            name, *arguments = shlex.split(line)
            yield name, arguments
