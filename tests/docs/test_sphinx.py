"""The manual can be built, without a warning."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.docs.pages import DOCS, PAGES, ROOT

INSTALL = "not installed: pip install 'djcelery[docs]'"


@pytest.mark.long
def test_the_manual_builds_without_a_warning_and_shows_its_pictures(tmp_path):
    pytest.importorskip("sphinx", reason=INSTALL)
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(DOCS), str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    shown = re.findall(r'<img [^>]*src="_images/([^"]+)"', (tmp_path / "monitor.html").read_text())
    assert {"overview-light.png", "tasks.png", "workers.png"} <= set(shown)
    assert all((tmp_path / "_images" / name).exists() for name in shown)
    # Nothing is fetched from elsewhere when somebody reads it.
    index = (tmp_path / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//[^"]+\.(?:js|css|woff2?)', index)


def test_every_picture_is_shown_and_described():
    pages_text = "\n".join(page.read_text() for page in PAGES)
    shown = re.findall(r"^\.\. image:: images/(\S+)\n   :alt: \S+", pages_text, re.MULTILINE)
    assert sorted(set(shown)) == sorted(path.name for path in (DOCS / "images").iterdir())


@pytest.mark.long
def test_the_sources_of_the_manual_are_clean():
    pytest.importorskip("sphinxlint", reason=INSTALL)
    rules = ["--enable", "all", "--disable", "line-too-long", "--ignore", str(DOCS / "_build")]
    files = [DOCS, ROOT / "README.rst", ROOT / "CONTRIBUTING.rst"]
    command = [sys.executable, "-m", "sphinxlint", *rules, *map(str, files)]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert linted.returncode == 0, linted.stdout + linted.stderr
