#!/usr/bin/env python
"""Run Celery's own integration suite with djcelery's result backend. ``make suite`` calls this.

Fetches Celery's source distribution of the installed version from the package index, unpacks its
tests into a temporary folder (nothing of them is kept in this project) and runs ``test_canvas``,
``test_group_chains`` and ``test_tasks`` with Redis as broker, once per database::

    suite/run.py                        PostgreSQL and SQLite
    suite/run.py sqlite --short         a selection, mostly of chords, about a minute
    suite/run.py redis                  Celery's own Redis backend, the measure of the others
    suite/run.py postgresql --backend django_celery_results.backends:DatabaseBackend
    suite/run.py sqlite -- -k chord -x  what follows ``--`` goes to pytest

REDIS_URL, whose database is emptied first (12), POSTGRES_URL and MYSQL_URL name other servers. Ends
with 1 if a test fails that ``suite/expected.py`` doesn't excuse, or fewer pass than it says.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import celery  # noqa: E402

from suite import expected  # noqa: E402

MODULES = ("test_canvas.py", "test_group_chains.py", "test_tasks.py")
OURS = "djcelery.backends.database:DatabaseBackend"
REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/12")
SERVERS = {
    "postgresql": os.environ.get("POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "mysql": os.environ.get("MYSQL_URL", "mysql://root@127.0.0.1:3306/suite"),
}
DATABASES = ("postgresql", "sqlite", "mysql")

# What the suite's own pyproject.toml says, without its plugins for other tests.
PYTEST_INI = """
[pytest]
addopts = --strict-markers
python_classes = test_*
xfail_strict = true
markers =
  sleepdeprived_patched_module
  masked_modules
  patched_environ
  patched_module
  flaky
  timeout
  amqp
"""


def fetch(folder: Path) -> Path:
    """Return the source distribution of the installed Celery, downloaded into *folder* if it isn't there."""
    version = celery.__version__
    archive = folder / f"celery-{version}.tar.gz"
    if not archive.exists():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", "celery", "--dest", str(folder), f"celery=={version}"]
        subprocess.run(command, check=True)
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """Put the package ``t`` with the integration tests and pytest's settings into *folder*."""
    with tarfile.open(archive) as tar:
        top = f"celery-{celery.__version__}/"
        skipped = tuple(f"{top}t/{folder}/" for folder in ("unit", "smoke", "benchmarks"))
        names = [m for m in tar.getmembers() if m.name.startswith(f"{top}t/") and not m.name.startswith(skipped)]
        tar.extractall(folder, names, filter="data")
    shutil.move(folder / top / "t", folder / "t")
    (folder / "pytest.ini").write_text(PYTEST_INI)


def run(database: str, backend: str, folder: Path, short: bool, arguments: list[str]) -> tuple[dict, float]:
    """Run the suite once; return its report and the seconds that it took."""
    path = folder / "report.json"
    environ = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "TEST_BROKER": REDIS_URL, "SUITE_REPORT": str(path)}
    # Some tests look for what the worker logs.
    environ["WORKER_LOGLEVEL"] = "INFO"
    if database == "redis":
        environ["TEST_BACKEND"] = REDIS_URL
    else:
        environ |= {"TEST_BACKEND": "redis-suite-on-django", "SUITE_BACKEND": backend}
        environ["DATABASE_URL"] = SERVERS.get(database, f"sqlite:///{folder}/suite.sqlite3")
        environ["DJANGO_SETTINGS_MODULE"] = "suite.settings"
    command = [sys.executable, "-m", "pytest", "-c", str(folder / "pytest.ini"), "-q", "--no-header", "--tb=short"]
    command += ["-p", "celery.contrib.pytest", "-p", "suite.plugin", "--durations=10"]
    for plugin in ("django", "randomly", "xdist", "cacheprovider"):
        command += ["-p", f"no:{plugin}"]
    for test in expected.NOT_FOR_US if database != "redis" else ():
        command += ["--deselect", test]
    if short:
        command += ["-k", expected.SHORT, *(f"--deselect={test}" for test in expected.MAY_FAIL)]
    subprocess.run([sys.executable, "-c", f"import redis; redis.Redis.from_url({REDIS_URL!r}).flushdb()"], check=True)
    whole: dict[str, dict] = {"outcomes": {}, "reruns": {}, "reasons": {}}
    began = time.monotonic()
    # A process for each: after the 250 tests of the first, a log record takes longer to come back from the worker than
    # the 10 ms that two tests of the last allow, with the Redis backend, too.
    for module in MODULES:
        path.unlink(missing_ok=True)
        subprocess.run([*command, f"t/integration/{module}", *arguments], env=environ, cwd=folder, check=False)
        if not path.exists():
            raise SystemExit(f"suite: pytest ended before it could report on {module} with {database}; see above.")
        for part, found in json.loads(path.read_text()).items():
            whole[part].update(found)
    return whole, time.monotonic() - began


def judge(database: str, report: dict, seconds: float, *, whole: bool) -> bool:
    """Print what became of the tests; return whether that is what must be."""
    outcomes = report["outcomes"]
    counts = {kind: sorted(t for t in outcomes if outcomes[t] == kind) for kind in sorted(set(outcomes.values()))}
    passed = len(counts.get("passed", ())) + len(counts.get("xpassed", ()))
    excused = expected.MAY_FAIL if database != "redis" else {}
    wrong = [test for test in counts.get("failed", ()) if test not in excused]
    wrong += [test for test in counts.get("skipped", ()) if test not in expected.SKIPPED and database != "redis"]
    least = expected.PASSES.get(celery.__version__, 0) if whole else 1
    print(
        f"\nCelery {celery.__version__}, {database}: " + ", ".join(f"{len(t)} {k}" for k, t in counts.items()), end=""
    )
    print(f"; {sum(report['reruns'].values())} reruns of {len(report['reruns'])} tests; {seconds:.0f} s")
    for test in counts.get("failed", ()):
        print(f"  failed{' (excused)' if test in excused else ''}: {test}\n    {expected.MAY_FAIL.get(test, '')}")
    for test in counts.get("skipped", ()):
        print(f"  skipped: {test}\n    {expected.SKIPPED.get(test) or report['reasons'].get(test, '')}")
    for test, times in report["reruns"].items():
        print(f"  run again {times} times: {test}")
    if passed < least:
        print(f"  {passed} passed; {least} must")
    return not wrong and passed >= least


def main() -> int:
    """Run what the command line asks for; return the exit status."""
    cut = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    mine, arguments = sys.argv[1:cut], sys.argv[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", nargs="*", help=", ".join((*DATABASES, "redis")))
    parser.add_argument("--backend", default=OURS, help="another Django result backend, to compare")
    parser.add_argument("--short", action="store_true", help="a selection of two minutes for two databases")
    options = parser.parse_args(mine)
    databases = options.database or ["postgresql", "sqlite"]
    if unknown := set(databases) - {*DATABASES, "redis"}:
        parser.error(f"no such database: {', '.join(unknown)}")
    good = True
    with tempfile.TemporaryDirectory(prefix="djcelery-suite-") as name:
        folder = Path(name)
        cache = Path(sys.prefix) / "suite"
        cache.mkdir(exist_ok=True)
        unpack(fetch(cache), folder)
        for database in databases:
            report, seconds = run(database, options.backend, folder, options.short, arguments)
            good &= judge(database, report, seconds, whole=not options.short and not arguments)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
