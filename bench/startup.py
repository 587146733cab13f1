#!/usr/bin/env python
"""Start-up of manage.py's commands beside "celery -A proj", interleaved; quotes medians and ratios.

    python bench/startup.py [--runs 15] [--goal 1.10]

A run of a program that stays (worker, beat) is measured up to the line that says it is ready. The project is
tests/project/modernproj, SQLite and an in-memory broker, so that nothing but the start is measured.

Some sub-commands of "celery -A proj" never set Django up, which manage.py always does before it looks for a command;
the column "+ setup" is Celery's command line after django.setup(), the least that manage.py could take. With --goal
the exit status is 1 if manage.py takes more than that many times the longer one of the two.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "tests" / "project"
CELERY = [str(Path(sys.executable).parent / "celery"), "-A", "modernproj"]
_SETUP = """
import sys, django
django.setup()
from celery.bin.celery import celery
from modernproj import celery_app
celery.main(args=sys.argv[1:], standalone_mode=False, default_map={"app": celery_app})
"""
CELERY_AFTER_SETUP = [sys.executable, "-c", _SETUP]
MANAGE = [sys.executable, str(PROJECT / "manage.py")]

_WORKER = ["-l", "info", "-P", "solo", "--without-mingle"]
_BEAT = ["-l", "info", "-S", "celery.beat:Scheduler"]

#: What is measured: Celery's line, ours, and the text that ends the measurement ("" for the end of the process).
CASES = {
    "worker until ready": (["worker", *_WORKER], ["celeryd", *_WORKER], " ready."),
    "beat until it ticks": (["beat", *_BEAT], ["celerybeat", *_BEAT], "beat: Starting"),
    "report": (["report"], ["celery", "report"], ""),
    "call a task": (["call", "shop.tasks.noop"], ["celery", "call", "shop.tasks.noop"], ""),
}

PEERS = ("celery -A", "+ setup", "manage.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, default=15, help="runs of each line; one more comes before and isn't counted"
    )
    parser.add_argument("--goal", type=float, help="the highest ratio that is still a success")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measure(options.runs, Path(folder))
    worst = report(times, options.runs)
    if options.goal and worst > options.goal:
        print(f"Above the goal of {options.goal:.2f}.")
        return 1
    return 0


def measure(runs: int, folder: Path) -> dict[tuple[str, str], list[float]]:
    """Return the seconds of every run, by case and by who ran it."""
    env = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
        "DJANGO_SETTINGS_MODULE": "modernproj.settings",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "BROKER_URL": "memory://",
        "C_FORCE_ROOT": "1",
    }
    times: dict[tuple[str, str], list[float]] = {}
    for run in range(runs + 1):
        for name, (theirs, ours, until) in CASES.items():
            lines = [CELERY + theirs, CELERY_AFTER_SETUP + theirs, MANAGE + ours]
            turns = list(zip(PEERS, lines, strict=True))
            # Whoever comes later finds warmer caches, so they take turns.
            for who, line in turns if run % 2 else reversed(turns):
                seconds = one(line, until, env, folder)
                if run:
                    times.setdefault((name, who), []).append(seconds)
    return times


def one(line: list[str], until: str, env: dict[str, str], folder: Path) -> float:
    """Run *line* until it prints *until*, or ends; return the seconds."""
    start = time.perf_counter()
    with subprocess.Popen(
        line, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        printed = ""
        for text in process.stdout:
            printed += text
            if until and until in text:
                break
        seconds = time.perf_counter() - start
        # With "until" the process must be alive, without it must have ended well.
        good = until in printed if until else process.wait() == 0
        process.kill()
    if not good:
        sys.exit(f"{' '.join(line)} failed:\n{printed}")
    return seconds


def report(times: dict[tuple[str, str], list[float]], runs: int) -> float:
    """Print the table; return the highest ratio to the longer one of Celery's two."""
    print(f"start-up in ms, medians of {runs} interleaved runs")
    print(f"{'':20}" + "".join(f"{who:>11}" for who in PEERS) + f"{'ratio':>8}{'ratio to + setup':>18}")
    worst = 0.0
    for name in CASES:
        plain, after_setup, ours = (statistics.median(times[name, who]) for who in PEERS)
        columns = "".join(f"{1000 * seconds:11.0f}" for seconds in (plain, after_setup, ours))
        print(f"{name:20}{columns}{ours / plain:8.2f}{ours / after_setup:18.2f}")
        worst = max(worst, ours / max(plain, after_setup))
    return worst


if __name__ == "__main__":
    sys.exit(main())
