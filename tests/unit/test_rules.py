"""The rules of CONTRIBUTING.rst that a program can check."""

from __future__ import annotations

import ast
from pathlib import Path

import djcelery

PACKAGE = Path(djcelery.__file__).parent
TESTS = Path(__file__).parents[1]


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_no_test_sleeps_for_a_fixed_time():
    sleepers = {
        str(path.relative_to(TESTS))
        for path in TESTS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr == "sleep"
    }
    assert sleepers == {"services.py"}


def test_modules_and_functions_stay_small():
    too_long = []
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        limit = 600 if path.name == "models.py" else 400
        if text.count("\n") > limit:
            too_long.append(f"{path.name}: {text.count(chr(10))} lines")
        too_long += [
            f"{path.name}: {node.name}" for node in functions(ast.parse(text)) if node.end_lineno - node.lineno > 50
        ]
    assert too_long == []


def test_nothing_is_left_to_be_done():
    marks = [f"{word}:" for word in ("TODO", "FIXME", "XXX")]
    found = [path.name for path in PACKAGE.rglob("*.py") if any(mark in path.read_text() for mark in marks)]
    assert found == []


def test_no_driver_is_imported():
    drivers = {"psycopg", "psycopg2", "MySQLdb", "sqlite3"}
    found = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path.name}: {name}" for name in names if name.partition(".")[0] in drivers]
    assert found == []
