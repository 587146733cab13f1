"""The tests by their ids, so that tables can name the test that proves a row."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "compatibility.rst"


@cache
def known_ids() -> frozenset[str]:
    """Return the id of every test, such as ``db/test_results.py::test_the_state_rule``."""
    return frozenset(
        f"{path.relative_to(TESTS).as_posix()}::{node.name}"
        for path in TESTS.rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    )


def missing(ids) -> list[str]:
    """Return those of *ids* that no test has."""
    return sorted(set(ids) - known_ids())


def page_text() -> str:
    """Return the manual's page of names and quirks as one line, without the marks of literals."""
    return " ".join(PAGE.read_text().replace("``", "").split())
