"""What is shipped: the declarations in pyproject.toml, and the built files if there are any.

``.ci/run`` builds wheel and sdist and names their folder in DJCELERY_DIST.
"""

from __future__ import annotations

import fnmatch
import os
import tarfile
import zipfile
from pathlib import Path

import pytest

import djcelery

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(djcelery.__file__).resolve().parent
DATA_FOLDERS = ("templates", "static", "locale")
NOT_SHIPPED = ("__pycache__",)


def shipped_files() -> set[str]:
    """Every file of the package, as its path in the wheel."""
    return {
        path.relative_to(PACKAGE.parent).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and not set(NOT_SHIPPED).intersection(path.parts)
    }


def built(pattern: str) -> Path:
    folder = os.environ.get("DJCELERY_DIST")
    if not folder:
        pytest.skip("DJCELERY_DIST names no folder with a built wheel and sdist (.ci/run does)")
    found = list(Path(folder).glob(pattern))
    assert len(found) == 1, f"{folder} should hold one {pattern}: {found}"
    return found[0]


@pytest.fixture(scope="module")
def pyproject() -> dict:
    # Python 3.10 has no TOML reader of its own.
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_package_data_names_every_file_that_is_no_python(pyproject):
    patterns = pyproject["tool"]["setuptools"]["package-data"]["djcelery"]
    data = [Path(name).relative_to("djcelery") for name in shipped_files() if not name.endswith(".py")]
    # In setuptools "**/" may also stand for no folder at all.
    patterns = [pattern.replace("**/", "") for pattern in patterns]
    missed = [str(path) for path in data if not any(fnmatch.fnmatch(path.as_posix(), p) for p in patterns)]
    assert not missed


def test_every_folder_with_modules_is_a_package():
    folders = {PACKAGE.parent / Path(name).parent for name in shipped_files() if name.endswith(".py")}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_entry_points_lead_to_what_they_name(pyproject):
    from celery.utils.imports import symbol_by_name

    entry_points = pyproject["project"]["entry-points"]
    for group in entry_points.values():
        for target in group.values():
            assert symbol_by_name(target).__module__.startswith("djcelery.")


def test_version_is_a_literal_that_setuptools_reads_without_importing(pyproject):
    assert pyproject["project"]["dynamic"] == ["version"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "djcelery.__version__"}
    assert f'__version__ = "{djcelery.__version__}"' in (PACKAGE / "__init__.py").read_text()
    assert djcelery.__version__ == ".".join(map(str, djcelery.VERSION))


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else():
    with zipfile.ZipFile(built("*.whl")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == shipped_files()


def test_the_sdist_holds_every_file_of_the_package_and_the_tests():
    with tarfile.open(built("*.tar.gz")) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert shipped_files() <= names
    assert {"README.rst", "Changelog", "LICENSE", "pyproject.toml", "Makefile", "tests/settings.py"} <= names


@pytest.mark.parametrize("folder", [*DATA_FOLDERS, "migrations"])
def test_wheel_and_sdist_hold_the_folder(folder):
    present = [name for name in shipped_files() if name.startswith(f"djcelery/{folder}/")]
    if not present and folder in DATA_FOLDERS:
        pytest.skip(f"djcelery has no file in {folder} yet")
    with zipfile.ZipFile(built("*.whl")) as wheel, tarfile.open(built("*.tar.gz")) as sdist:
        in_sdist = {name.partition("/")[2] for name in sdist.getnames()}
        assert set(present) <= set(wheel.namelist())
        assert set(present) <= in_sdist
