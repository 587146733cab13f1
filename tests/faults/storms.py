"""Tasks by the thousand while processes are killed or databases restarted, and an account of what became of them.

Used by the short forms in ``tests/integration/test_result_faults.py`` and the long form,
``python -m tests.faults`` (``make faults``).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.services import wait_until

SETTINGS = {
    # Lost with the process that ran it, or run again: the project's choice.
    "early": {"CELERY_ACKS_LATE": False},
    "late": {"CELERY_ACKS_LATE": True, "CELERY_TASK_REJECT_ON_WORKER_LOST": True},
}
FINAL = ("SUCCESS", "FAILURE", "REVOKED")


@dataclass
class Report:
    """What was done, and what became of the tasks."""

    title: str
    tasks: int
    seed: int
    store_kills: int = 0
    pool_kills: int = 0
    worker_kills: int = 0
    restarts: int = 0
    connection_kills: int = 0
    final: int = 0
    torn: list[str] = field(default_factory=list)
    unfinished: int = 0
    without_row: int = 0
    never_received: int = 0
    worker_lost: int = 0
    seconds: float = 0.0

    @property
    def lost(self) -> int:
        """The tasks without an outcome of their own, but for those that the broker lost."""
        return self.unfinished + self.without_row + self.worker_lost

    def __str__(self) -> str:
        faults = ", ".join(
            f"{count} {what}"
            for count, what in (
                (self.store_kills, "pool processes killed while they stored"),
                (self.pool_kills, "other pool processes killed"),
                (self.worker_kills, "workers killed"),
                (self.restarts, "database restarts"),
                (self.connection_kills, "connections killed"),
            )
            if count
        )
        return (
            f"{self.title}: {self.tasks} tasks, {faults}: {self.final} final, {len(self.torn)} torn, {self.lost} lost "
            f"({self.without_row} without a row, {self.unfinished} unfinished, {self.worker_lost} WorkerLostError), "
            f"{self.never_received} lost on the way to a worker, in {self.seconds:.0f} s, seed {self.seed}"
        )


class Workers:
    """Some workers on one queue, which can be killed and started again."""

    def __init__(self, programs: Any, count: int, concurrency: int, **env: str):
        self.programs, self.words = programs, ("celeryd", "-c", str(concurrency), "-l", "info")
        self.env = env
        self.running = [self._start(number) for number in range(count)]

    def _start(self, number: int) -> Any:
        started = self.programs.start(*self.words, "-n", f"w{number}@faults", **self.env)
        started.number = number
        return started

    def pool_processes(self) -> list[int]:
        """Return the pool processes of all workers."""
        return [pid for worker in self.running for pid in children(worker.pid)]

    def kill_one(self, rng: random.Random) -> bool:
        """Kill a worker, its pool with it or, as rarely in life, the main process alone; start another."""
        victim = rng.choice(self.running)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGKILL) if rng.random() < 0.7 else os.kill(victim.pid, signal.SIGKILL)
        victim.popen.wait()
        self.running.remove(victim)
        self.running.append(self._start(victim.number))
        return True

    def revive(self) -> None:
        """Start workers anew that Celery ended because all pool processes were killed while they started."""
        for worker in self.running[:]:
            if worker.popen.poll() is not None and "Could not start worker processes" in worker.text():
                self.running.remove(worker)
                self.running.append(self._start(worker.number))

    def kill_pool_process(self, rng: random.Random) -> bool:
        """Kill one pool process, if there is one."""
        pids = self.pool_processes()
        if not pids:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(pids), signal.SIGKILL)
            return True
        return False


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def send(programs: Any, task: str, count: int) -> dict[str, int]:
    """Send *count* tasks with the arguments 0, 1, … from one process; return the numbers by id."""
    code = (
        f"from djcelery.app import app; import json\n"
        f"with app.producer_or_acquire() as p:\n"
        f"    print(json.dumps([app.send_task('{task}', (n,), producer=p).id for n in range({count})]))"
    )
    done = programs.run("shell", "-v0", "-c", code, timeout_s=300)
    assert done.returncode == 0, done.stderr
    return {task_id: n for n, task_id in enumerate(json.loads(done.stdout.strip().splitlines()[-1]))}


def finals(engine: Any) -> int:
    """Return how many rows are final; while the database is away, none."""
    try:
        return engine.ask(f"SELECT count(*) FROM celery_taskmeta WHERE status IN {FINAL}")[0][0]
    except Exception as exc:
        # Each client has error types of its own.
        if type(exc).__name__ in ("OperationalError", "InterfaceError"):
            return -1
        raise


def account(report: Report, engine: Any, sent: dict[str, int], logs: str) -> None:
    """Compare every row of ``shop.faulty.work`` with what the task must have returned.

    A task that no worker has received was lost before: kombu takes a message out of Redis (BRPOP) a moment
    before it notes that it isn't acknowledged, and a worker may be killed in between.
    """
    rows = engine.ask("SELECT task_id, status, result, traceback, name, args, started, finished FROM celery_taskmeta")
    seen = set()
    for task_id, status, result, traceback, name, args, started, finished in rows:
        seen.add(task_id)
        if status not in FINAL:
            report.unfinished += 1
            continue
        report.final += 1
        if status == "FAILURE" and "WorkerLostError" in (result or ""):
            report.worker_lost += 1
            continue
        number = sent[task_id]
        args = json.loads(args) if isinstance(args, str) else args
        whole = name == "shop.faulty.work" and args == [number] and started is not None and finished is not None
        if number % 10 == 9:
            failure = json.loads(result or "{}")
            whole &= status == "FAILURE" and failure.get("exc_message") == [f"number {number}"]
            whole &= "ValueError" in (traceback or "")
        else:
            whole &= status == "SUCCESS" and result == str(number * number) and traceback is None
        if not whole:
            report.torn.append(
                f"{task_id} ({number}): {status} {result!r} {traceback!r} {name} {args} {started} {finished}"
            )
    for task_id in set(sent) - seen:
        if f"[{task_id}] received" in logs:
            report.without_row += 1
        else:
            report.never_received += 1


def storm(
    programs: Any,
    engine: Any,
    *,
    title: str,
    tasks: int,
    seed: int,
    faults: Any,
    acks: str = "late",
    workers: int = 2,
    concurrency: int = 2,
    pauses_s: tuple[float, float] = (0.05, 0.5),
    quiet_s: float = 30,
    die_storing: float = 0.0,
) -> Report:
    """Send *tasks*, do *faults* until they are used up, and wait for the last result.

    Args:
        faults: A function of (workers, report, rng) that does one fault and returns whether there
            are more to come.
        die_storing: The share of stores at which the pool process is killed within the next 4 ms.
        pauses_s: The shortest and the longest time between two faults, in seconds.
        quiet_s: So long without a new result means that no more will come.
    """
    report = Report(f"{title}, {acks} acknowledgement", tasks, seed)
    rng = random.Random(seed)
    env = {"FAULT_SETTINGS": json.dumps(SETTINGS[acks])}
    programs.env |= {"DATABASE_URL": engine.url, "DJANGO_SETTINGS_MODULE": "legacyproj.faults"}
    note = programs.root / "store-kills"
    if die_storing:
        env["DIE_WHILE_STORING"] = f"{die_storing}:{note}"
    began = time.monotonic()
    if engine.label != "SQLite":
        migrated = programs.run("migrate", "-v0")
        assert migrated.returncode == 0, migrated.stderr
    sent = send(programs, "shop.faulty.work", tasks)
    group = Workers(programs, workers, concurrency, **env)
    wait_until(lambda: finals(engine) > 0, 60, "the first result")
    pause, more = threading.Event(), True
    while more and finals(engine) < tasks * 0.95:
        pause.wait(rng.uniform(*pauses_s))
        group.revive()
        more = faults(group, report, rng)
    _wait_for_the_rest(group, engine, tasks, quiet_s)
    group.revive()
    report.store_kills = len(note.read_text()) if note.exists() else 0
    account(report, engine, sent, "".join(worker.text() for worker in programs.running))
    ended = [f"{w.popen.returncode}: {w.text()[-3000:]}" for w in group.running if w.popen.poll() is not None]
    assert not ended, "\n".join(ended)
    for worker in group.running:
        worker.send(signal.SIGTERM)
    for worker in group.running:
        worker.end()
    report.seconds = time.monotonic() - began
    return report


def _wait_for_the_rest(group: Workers, engine: Any, tasks: int, quiet_s: float) -> None:
    last = [-1, time.monotonic()]

    def ended() -> bool:
        group.revive()
        done = finals(engine)
        if done != last[0]:
            last[:] = [done, time.monotonic()]
        return done == tasks or time.monotonic() - last[1] > quiet_s

    wait_until(ended, 3600, "the last result")


def kills(pool: int, workers: int) -> Any:
    """Return the faults of a storm: so many pool processes and workers, killed in random order."""
    plan: list[str] = []

    def fault(group: Workers, report: Report, rng: random.Random) -> bool:
        if not plan:
            plan.extend(["pool"] * pool + ["worker"] * workers)
            rng.shuffle(plan)
        if plan.pop() == "pool":
            report.pool_kills += group.kill_pool_process(rng)
        else:
            report.worker_kills += group.kill_one(rng)
        return bool(plan)

    return fault


def restarts(server: Any, count: int, away_s: tuple[float, float] = (0.1, 3.0)) -> Any:
    """Return the faults of a storm: the database's server killed or stopped, away for a time, started again."""
    left = [count]

    def fault(group: Workers, report: Report, rng: random.Random) -> bool:
        server.stop(rng.choice(server.ways))
        threading.Event().wait(rng.uniform(*away_s))
        server.start()
        report.restarts += 1
        left[0] -= 1
        return left[0] > 0

    return fault


def connection_kills(engine: Any, count: int) -> Any:
    """Return the faults of a storm: all sessions of the database ended by its server."""
    left = [count]

    def fault(group: Workers, report: Report, rng: random.Random) -> bool:
        for session in engine.sessions():
            engine.end(session)
            report.connection_kills += 1
        left[0] -= 1
        return left[0] > 0

    return fault


@contextlib.contextmanager
def closing_after(programs: Any, engine: Any) -> Iterator[Any]:
    """Yield *engine*; end all programs before it is closed."""
    try:
        yield engine
    finally:
        programs.kill()
        engine.close()
