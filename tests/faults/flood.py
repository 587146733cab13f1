"""Tasks by the hundred thousand through real workers, while camera and database are killed: does the history agree?

``make flood``, or ``python -m tests.faults.flood --help``; the short form is in ``tests/integration/test_flood.py``.
Workers (prefork, two processes, ``-E``) run tasks on RabbitMQ that count themselves in files. Meanwhile the camera is
killed or stopped and started again, and a PostgreSQL server of its own is killed and restarted. In the end the totals
of the history must be what ran, but for what the camera says it has missed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.faults import engines
from tests.faults.__main__ import programs, say
from tests.services import wait_until

TASKS = 200_000
CAM = ("celerycam", "-F", "1", "--pidfile=", "-l", "info")
WORKER = ("celeryd", "-E", "-c", "2", "-l", "warning")
#: States in which an execution ends.
ENDS = ("SUCCESS", "FAILURE", "REVOKED", "REJECTED")
#: Sends them from a process of its own; the workers take them meanwhile.
SEND = """
from djcelery.app import app
with app.producer_or_acquire() as p:
    for n in range({count}):
        app.send_task("shop.faulty.tick", (n,), producer=p)
print("all are sent")
"""


@dataclass
class Report:
    """What was done, and what the tables say of it."""

    tasks: int
    seed: int
    ran: int = 0
    camera_kills: int = 0
    camera_stops: int = 0
    restarts: int = 0
    history: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    twice: int = 0
    missed: int = 0
    dropped: int = 0
    malformed: int = 0
    seconds: float = 0.0
    behind_s: float = 0.0
    trouble: list[str] = field(default_factory=list)

    @property
    def ended(self) -> int:
        return sum(self.history.get(state, 0) for state in ENDS)

    @property
    def failed(self) -> bool:
        """Whether something is not explained."""
        return self.ran != self.ended + self.missed or self.ran < self.tasks or bool(self.twice or self.trouble)

    def __str__(self) -> str:
        states = ", ".join(f"{state} {count}" for state, count in sorted(self.history.items()))
        return (
            f"{self.ran} of {self.tasks} tasks ran; history: {states}; {self.rows} rows, {self.twice} of them twice; "
            f"missed {self.missed}, dropped {self.dropped}, malformed {self.malformed}; camera killed "
            f"{self.camera_kills} and stopped {self.camera_stops} times, database restarted {self.restarts} times, "
            f"in {self.seconds:.0f} s ({self.ran / max(self.seconds, 1):.0f} tasks/s), camera done "
            f"{self.behind_s:.1f} s after the last task, "
            f"seed {self.seed}"
        )


class Flood:
    """One flood, from the first task to the last row."""

    def __init__(self, started: Any, server: Any, engine: Any, report: Report, workers: int):
        self.programs, self.server, self.engine, self.report = started, server, engine, report
        self.rng = random.Random(report.seed)
        self.ticks = Path(started.root / "ticks")
        self.ticks.mkdir()
        started.env |= {
            "DATABASE_URL": engine.url,
            "DJANGO_SETTINGS_MODULE": "legacyproj.faults",
            # The database is the camera's alone, and what waits for it outlives what is done to it here.
            "FAULT_SETTINGS": json.dumps({"CELERY_IGNORE_RESULT": True}),
            "CAMERA_QUEUE_TTL_S": "600",
            "TICKS": str(self.ticks),
        }
        migrated = started.run("migrate", "-v0")
        assert migrated.returncode == 0, migrated.stderr
        self.camera = self._start_camera()
        names = [f"flood{number}@host" for number in range(workers)]
        self.workers = [started.start(*WORKER, "-n", name) for name in names]

    def _start_camera(self) -> Any:
        return self.programs.start(*CAM, ready="Connected to")

    def ran(self) -> int:
        """Return how many tasks have run, as they count it themselves."""
        return sum(path.stat().st_size for path in self.ticks.iterdir())

    def run(self) -> Report:
        """Send the tasks, do the faults at random moments, wait for the end and compare."""
        report, began = self.report, time.monotonic()
        sender = self.programs.start("shell", "-v0", "-c", SEND.format(count=report.tasks))
        faults = ["kill camera", "kill camera", "stop camera", "restart database", "restart database"]
        self.rng.shuffle(faults)
        moments = sorted(self.rng.uniform(0.05, 0.95) for _ in faults)
        for fault, moment in zip(faults, moments, strict=True):
            self._wait(lambda until=int(moment * report.tasks): self.ran() >= until, f"{moment:.0%} of the tasks")
            getattr(self, f"_{fault.replace(' ', '_')}")()
        self._wait(lambda: self.ran() >= report.tasks, "the last task")
        sender.wait_for("all are sent")
        last = time.monotonic()
        wait_until(self._is_quiet, 600, "the camera to be done")
        report.seconds, report.behind_s = time.monotonic() - began, self._quiet_since - last
        self._end()
        self._read()
        return report

    def _wait(self, probe: Any, what: str) -> None:
        wait_until(probe, 3600, what)

    # faults

    def _pause(self) -> None:
        threading.Event().wait(self.rng.uniform(0.0, 3.0))

    def _kill_camera(self) -> None:
        self.camera.send(signal.SIGKILL)
        self.camera.end()
        self._pause()
        self.camera = self._start_camera()
        self.report.camera_kills += 1

    def _stop_camera(self) -> None:
        status = self.camera.stop()
        if status:
            self.report.trouble.append(f"The camera ended with {status}: {self.camera.text()[-2000:]}")
        self._pause()
        self.camera = self._start_camera()
        self.report.camera_stops += 1

    def _restart_database(self) -> None:
        self.server.stop(self.rng.choice(self.server.ways))
        self._pause()
        self.server.start()
        self.report.restarts += 1

    # the end

    _last: Any = None
    _quiet_since = 0.0

    def _is_quiet(self) -> bool:
        """Tell whether all that ran is accounted for, or nothing has changed for a time."""
        found = self._totals(), self._sums()
        if found != self._last:
            self._last, self._quiet_since = found, time.monotonic()
        # Missed tasks are counted some heartbeats later.
        return time.monotonic() - self._quiet_since > 12

    def _totals(self) -> dict[str, int]:
        rows = self.engine.ask(
            "SELECT state, sum(count) FROM djcelery_taskhistory WHERE period = 'total' GROUP BY state"
        )
        return {state: int(count) for state, count in rows}

    def _sums(self) -> tuple[int, ...]:
        # The row of a camera is written every few seconds; those of workers with their tasks.
        missed = self.engine.ask("SELECT sum(missed) FROM djcelery_workerstate")[0]
        others = self.engine.ask("SELECT sum(dropped), sum(malformed) FROM djcelery_camerastate")[0]
        return tuple(int(value or 0) for value in (*missed, *others))

    def _end(self) -> None:
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        for worker in self.workers:
            worker.end()
        status = self.camera.stop()
        if status:
            self.report.trouble.append(f"The camera ended with {status}: {self.camera.text()[-2000:]}")
        for running in self.programs.running:
            if "Traceback" in running.text():
                self.report.trouble.append(running.text()[-3000:])

    def _read(self) -> None:
        report = self.report
        report.ran, report.history = self.ran(), self._totals()
        report.missed, report.dropped, report.malformed = self._sums()
        ((report.rows, distinct),) = self.engine.ask("SELECT count(*), count(DISTINCT task_id) FROM djcelery_taskstate")
        report.twice = report.rows - distinct


def flood(started: Any, tasks: int, seed: int, workers: int = 1) -> Report:
    """Let *tasks* loose in the environment of *started*, with a PostgreSQL server of its own."""
    server = engines.PostgresServer()
    try:
        engine = server.engine(f"djcelery_flood_{os.getpid()}", server.url)
        try:
            return Flood(started, server, engine, Report(tasks, seed), workers).run()
        finally:
            started.kill()
            engine.close()
    finally:
        server.close()


def main() -> int:
    """Run the long form; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.flood", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the faults and their moments")
    parser.add_argument("--workers", type=int, default=1, help="of two processes each (1)")
    options = parser.parse_args()
    try:
        with programs("rabbitmq") as started:
            report = flood(started, options.tasks, options.seed, options.workers)
    except pytest.skip.Exception as exc:
        say(f"skipped: {exc}")
        return 1
    say(f"{'FAILED' if report.failed else 'ok'}  {report}", *report.trouble)
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
