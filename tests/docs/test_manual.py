"""The manual says what the code does."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from kombu.utils.imports import symbol_by_name

import djcelery
from djcelery import checks
from djcelery import conf as configuration
from tests.docs.pages import DOCS, NAMES, PAGES, ROOT

# Not beside this file where the installed wheel is tested.
PACKAGE = Path(djcelery.__file__).parent
EXPLAIN = sorted((DOCS / "explain").glob("*.rst"))


def resolve(dotted):
    """Import the longest prefix of *dotted* that is a module and follow the rest by attributes."""
    parts = dotted.split(".")
    for end in range(len(parts), 0, -1):
        try:
            value = (
                symbol_by_name(".".join(parts[:end])) if end == 1 else __import__(".".join(parts[:end]), fromlist=["x"])
            )
        except ImportError:
            continue
        for part in parts[end:]:
            value = getattr(value, part)
        return value
    raise ImportError(dotted)


@pytest.mark.parametrize("page", EXPLAIN, ids=lambda p: p.stem)
def test_every_dotted_name_on_an_explain_page_still_imports(page):
    names = set(re.findall(r"``((?:djcelery|celery)(?:\.\w+)+)``", page.read_text()))
    assert names or page.stem == "x"
    for name in names - {"celery.backend_cleanup", "celery.task", "celery.decorators"}:
        resolve(name)


@pytest.mark.parametrize("page", EXPLAIN, ids=lambda p: p.stem)
def test_explain_pages_are_short(page):
    assert len(page.read_text().splitlines()) <= 100


def test_every_setting_is_in_the_reference_with_its_sentence():
    text = (DOCS / "reference" / "settings.rst").read_text()
    flat = " ".join(text.replace("``", "").split())
    for name, setting in configuration.Conf.all().items():
        assert f"``{name}`` (default" in text
        assert setting.__doc__ in flat
    for old, new in configuration.RENAMED.items():
        assert re.search(rf"``{old}``\s+``{new}``", text)
    for name in configuration.COMMAND_DEFAULTS:
        assert f"``{name}``" in text


def test_every_check_is_in_the_reference():
    source = "".join(path.read_text() for path in Path(checks.__file__).parent.glob("*.py"))
    ids = set(re.findall(r'"(djcelery\.[EIW]\d{3})"', source))
    text = (DOCS / "reference" / "checks.rst").read_text()
    assert ids == set(re.findall(r"^``(djcelery\.[EIW]\d+)``", text, re.MULTILINE))


def toctree_entries(text):
    """Yield the page names in each ``toctree`` of *text*."""
    inside = False
    for line in text.splitlines():
        if line.startswith(".. toctree::"):
            inside = True
        elif line.strip() and not line.startswith(" "):
            inside = False
        elif inside and line.strip() and not line.strip().startswith(":"):
            yield line.strip()


def test_every_page_is_in_the_table_of_contents_once():
    listed = list(toctree_entries((DOCS / "index.rst").read_text()))
    there = {str(page.relative_to(DOCS).with_suffix("")) for page in PAGES} - {"index"}
    assert set(listed) == there
    assert len(listed) == len(set(listed))


def test_the_next_page_that_a_module_names_exists():
    for path in PACKAGE.rglob("*.py"):
        for page in re.findall(r"``(docs/[\w/-]+\.rst)``", path.read_text()):
            assert (ROOT / page).exists(), f"{path.name} names {page}"


def python_blocks(text):
    """Yield the code of each ``code-block:: python`` in *text*, without its indentation."""
    lines = iter(text.splitlines())
    for line in lines:
        if ".. code-block:: python" not in line:
            continue
        block = []
        for inside in lines:
            indent = len(inside) - len(inside.lstrip())
            if inside.strip() and indent <= len(line) - len(line.lstrip()):
                break
            block.append(inside)
        yield textwrap.dedent("\n".join(block))


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_python_in_the_manual_compiles(page):
    for block in python_blocks(page.read_text()):
        assert compile(block, str(page), "exec")


def test_every_command_is_in_the_reference():
    text = (DOCS / "reference" / "commands.rst").read_text()
    commands = {path.stem for path in (PACKAGE / "management" / "commands").glob("[!_]*.py")}
    assert {"celeryd", "celerybeat", "celerycam"} <= commands
    for command in commands:
        assert re.search(rf"^``{command}`` ", text, re.MULTILINE), command
