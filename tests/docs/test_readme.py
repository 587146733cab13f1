"""What README.rst and Changelog say is so."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest
from django.core.management import get_commands

import djcelery
from tests.docs import pages
from tests.docs.test_typed import parsed

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.rst").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "Changelog").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def indented_after(text: str, marker: str) -> list[str]:
    """Every block that follows a line ending in *marker* and is indented deeper than that line."""
    blocks = []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if not line.endswith(marker):
            continue
        depth = len(line) - len(line.lstrip())
        block = []
        for follower in lines[number + 1 :]:
            if follower.strip() and len(follower) - len(follower.lstrip()) <= depth:
                break
            block.append(follower)
        blocks.append("\n".join(block))
    return blocks


def dedent(block: str) -> str:
    lines = [line for line in block.splitlines() if line.strip()]
    depth = min(len(line) - len(line.lstrip()) for line in lines)
    return "\n".join(line[depth:] for line in block.splitlines())


def make_targets(text: str) -> set[str]:
    """What is typed after ``make`` in literal text."""
    literals = [*indented_after(text, "::"), *re.findall(r"``(.+?)``", text)]
    return set(re.findall(r"(?<!install )\bmake ([a-z]+)", "\n".join(literals)))


def test_readme_has_at_most_150_lines():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("text", [README, CONTRIBUTING], ids=["README", "CONTRIBUTING"])
def test_every_make_target_that_is_named_exists(text):
    targets = make_targets(text)
    assert {"demo", "test"} <= targets
    assert targets <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_readme_names_only_variables_that_the_makefile_reads():
    named = set(re.findall(r"make \w+ ([A-Z_]+)=", README))
    assert {"DEMO_SECONDS", "DEMO_PORT"} <= named
    assert named <= set(re.findall(r"^([A-Z_]+) \?=", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize("target", ["demo", "test"])
def test_make_can_run_what_the_readme_names(target):
    dry_run = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert dry_run.returncode == 0, dry_run.stderr


def test_python_blocks_compile():
    blocks = indented_after(README, ".. code-block:: python")
    assert len(blocks) >= 3
    for block in blocks:
        ast.parse(dedent(block))


def test_every_management_command_that_is_named_exists():
    named = set(re.findall(r"manage\.py ([a-z_]+)", README))
    assert {"migrate", "celeryd", "celerybeat", "celerycam", "check"} <= named
    assert named <= set(get_commands())


def test_every_command_line_is_one_that_is_taken():
    for name, arguments in pages.commands(README):
        parsed(name, arguments)


def test_a_new_project_gets_the_files_that_the_quick_start_is_tested_with():
    tested = {block.file: block.text for block in pages.blocks(pages.read("quickstart")) if block.language == "python"}
    files = {block.file: block.text for block in pages.blocks(README) if block.language == "python" and block.file}
    assert set(files) == {"proj/settings.py", "proj/celery.py", "proj/__init__.py"}
    for name in ("proj/celery.py", "proj/__init__.py"):
        assert files[name] == tested[name]
    assert re.findall(r"^(\w+) ", files["proj/settings.py"], re.M) == re.findall(
        r"^(\w+) ", tested["proj/settings.py"], re.M
    )


def test_entry_points_that_are_named_are_declared():
    backend = re.search(r'CELERY_RESULT_BACKEND = "([\w-]+)"', README)
    assert backend
    assert f"\n{backend[1]} = " in PYPROJECT


def test_linked_files_exist():
    links = re.findall(r"`[^`<]+ <([^>:]+)>`_", README)
    assert links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_support_table_says_what_the_metadata_says():
    row = dict(re.findall(r"^(Python|Django|Celery) +(.+)$", README, re.MULTILINE))
    pythons = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    djangos = re.findall(r'"Framework :: Django :: (\d\.\d)"', PYPROJECT)
    assert row["Python"].startswith(f"{pythons[0]} to {pythons[-1]}")
    assert f'requires-python = ">={pythons[0]}"' in PYPROJECT
    assert row["Django"] == ", ".join(djangos)
    assert f'"Django>={djangos[0]}"' in PYPROJECT
    assert f'"celery>={row["Celery"].split()[0]}"' in PYPROJECT


def test_newest_changelog_heading_is_the_version():
    heading = re.search(r"^(\d+\.\d+\.\d+)\n=+\n:release-date: (.+)$", CHANGELOG, re.MULTILINE)
    assert heading, "Changelog needs a version heading followed by :release-date:"
    assert heading[1] == djcelery.__version__
    assert f".. _version-{djcelery.__version__}:" in CHANGELOG
    assert heading[2] == "TBA" or re.match(r"\d{4}-\d{2}-\d{2}", heading[2])


def test_every_changelog_heading_has_the_legacy_form():
    headings = re.findall(r"^(\d+\.\d+\.\d+)\n(=+)\n(.*)$", CHANGELOG, re.MULTILINE)
    for version, rule, next_line in headings:
        assert len(rule) == len(version)
        assert next_line.startswith(":release-date:"), version
