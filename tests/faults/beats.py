"""Several beats on one database; beats are killed and frozen, servers restarted: is a firing lost or doubled?

Used by the short forms in ``tests/integration/test_beat_faults.py`` and by ``python -m tests.faults beats`` (long).
What must be sent is computed here, naively, from the entries; what was sent is read from the broker. Neither asks
djcelery or its tables.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.services import wait_until

BEAT = ("celerybeat", "-S", "djcelery.schedulers.DatabaseScheduler", "--pidfile=", "-l", "info")
#: Half and quarter hours among them; none is at an odd number of minutes from a wrong one by chance alone.
ZONES = ("UTC", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham", "Europe/Brussels")
MINUTES = ("*", "*/2", "1-59/2", "*/3", "2-59/3", "*/5")
SECONDS = (2, 3, 5, 7, 10, 13, 15, 20, 30, 45, 60)
#: At most so many messages are sent and not yet marked (``outbox.MARK_EVERY``): what one fault may have sent again.
IN_FLIGHT = 500
#: What a busy machine may add to a takeover, in seconds.
SLACK_S = 5.0
#: Makes the rows of a file of entries.
CREATE = """
import json; from datetime import datetime; from djcelery.models import *
times, rows = {{}}, []
for e in json.load(open({path!r})):
    if "every" in e:
        key = e["every"]
        one = times.get(key) or IntervalSchedule.objects.create(every=key, period="seconds")
        how = dict(interval=one, start_time=e["start_time"] and datetime.fromisoformat(e["start_time"]))
    else:
        key = e["minute"], e["hour"], e["zone"]
        one = times.get(key) or CrontabSchedule.objects.create(minute=key[0], hour=key[1], timezone=key[2])
        how = dict(crontab=one)
    times[key] = one
    since = datetime.fromisoformat(e["since"])
    rows.append(PeriodicTask(name=e["name"], task="shop.tasks.noop", missed_runs="all", scheduled_from=since, **how))
PeriodicTask.objects.bulk_create(rows)
"""


# -- what must be sent -------------------------------------------------------------------------


def entries(count: int, rng: random.Random, start: datetime) -> list[dict[str, Any]]:
    """Return *count* entries as JSON: one in 25 every second, a quarter crontabs, the others at most a minute."""
    found = []
    for number in range(count):
        since = start + timedelta(microseconds=rng.randrange(3_000_000))
        entry: dict[str, Any] = {"name": f"entry {number}", "since": since.isoformat()}
        if number % 4 == 1:
            zone = rng.choice(ZONES)
            hours = {(start + timedelta(hours=n)).astimezone(ZoneInfo(zone)).hour for n in range(-1, 4)}
            entry |= {"minute": rng.choice(MINUTES), "hour": ",".join(map(str, sorted(hours))), "zone": zone}
        else:
            anchor = since + timedelta(microseconds=rng.randrange(-3_600_000_000, 20_000_000))
            entry["every"] = 1 if number % 25 == 0 else rng.choice(SECONDS)
            entry["start_time"] = anchor.isoformat() if number % 3 == 0 else None
        found.append(entry)
    return found


def instants(entry: dict[str, Any], until: datetime) -> Iterator[datetime]:
    """Yield when *entry* fires, one period or minute after the other."""
    since = datetime.fromisoformat(entry["since"])
    if "every" in entry:
        at = datetime.fromisoformat(entry["start_time"]) if entry["start_time"] else since
        # A start time fires itself; what a task counts from otherwise doesn't.
        while at <= until:
            if at > since:
                yield at
            at += timedelta(seconds=entry["every"])
        return
    minutes, hours, zone = _minutes(entry["minute"]), set(map(int, entry["hour"].split(","))), ZoneInfo(entry["zone"])
    at = since.replace(second=0, microsecond=0)
    while at <= until:
        wall = at.astimezone(zone)
        if at > since and wall.minute in minutes and wall.hour in hours:
            yield at
        at += timedelta(minutes=1)


def _minutes(text: str) -> set[int]:
    first, _, step = text.partition("/")
    return set(range(int(first.split("-")[0]) if "-" in first else 0, 60, int(step or 1)))


# -- what was sent -----------------------------------------------------------------------------


class Collector:
    """Reads the messages from the lists of a Redis server, each once, and leaves them there."""

    def __init__(self, server: Any):
        self.server = server
        self.ids: dict[tuple[str, datetime], set[str]] = {}
        self.times_sent: Counter[str] = Counter()
        self._read: Counter[bytes] = Counter()

    def read(self) -> None:
        """Read what has come since. Kombu puts messages at the head, so those from the tail keep their number."""
        with self.server.client() as client:
            for key in client.scan_iter(_type="list"):
                while found := client.lrange(key, -self._read[key] - 1000, -self._read[key] - 1):
                    self._read[key] += len(found)
                    for message in found:
                        self._note(json.loads(message)["headers"])

    def _note(self, headers: dict[str, Any]) -> None:
        at = datetime.fromisoformat(headers["periodic_scheduled_at"])
        self.ids.setdefault((headers["periodic_task_name"], at), set()).add(headers["id"])
        self.times_sent[headers["id"]] += 1


@dataclass
class Report:
    """What was done, and what became of the firings."""

    title: str
    entries: int
    seed: int
    lease_s: float
    faults: Counter = field(default_factory=Counter)
    firings: int = 0
    lost: int = 0
    two_ids: int = 0
    resent: int = 0
    unscheduled: int = 0
    takeovers_s: list[float] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Whether the promise is broken."""
        slow = max(self.takeovers_s, default=0) > self.lease_s + SLACK_S
        too_many = self.resent > IN_FLIGHT * self.faults.total()
        return bool(self.lost or self.two_ids or self.unscheduled or self.ended or slow or too_many)

    def __str__(self) -> str:
        faults = ", ".join(f"{count} {what}" for what, count in self.faults.items())
        takeovers = " ".join(f"{seconds:.1f}" for seconds in sorted(self.takeovers_s)) or "none"
        return (
            f"{self.title}: {self.entries} entries, {self.firings} firings, {faults}, in {self.seconds:.0f} s, "
            f"seed {self.seed}\n        lost={self.lost} two_ids={self.two_ids} resent={self.resent} "
            f"unscheduled={self.unscheduled}; takeovers in s, of a lease of {self.lease_s:.0f}: {takeovers}"
        )


def account(report: Report, rows: list[dict[str, Any]], sent: Collector, until: datetime, stopped: datetime) -> None:
    """Compare what was *sent* with all instants *until* the end of the faults; later ones need not be sent."""
    report.firings = report.lost = 0
    report.examples = []
    allowed = set()
    for row in rows:
        for at in instants(row, stopped):
            key = row["name"], at
            allowed.add(key)
            report.firings += at <= until
            if at <= until and key not in sent.ids:
                report.lost += 1
                report.examples.append(f"lost: {row} at {at.isoformat()}")
    twice = [f"two ids: {key} {ids}" for key, ids in sent.ids.items() if len(ids) > 1]
    strange = [f"unscheduled: {name} at {at.isoformat()}" for name, at in sent.ids.keys() - allowed]
    report.two_ids, report.unscheduled = len(twice), len(strange)
    report.resent = sum(count - 1 for count in sent.times_sent.values())
    report.examples += twice + strange


# -- the faults --------------------------------------------------------------------------------


class Beats:
    """Some beats, of which one leads."""

    def __init__(self, programs: Any, engine: Any, count: int, report: Report):
        self.programs, self.engine, self.report = programs, engine, report
        self.running = [programs.start(*BEAT) for _ in range(count)]
        self._token: int | None = None
        self._leader: int | None = None
        self._gone_mono: float | None = None

    def look(self) -> bool:
        """See who leads; tell whether the database knows of somebody."""
        try:
            rows = self.engine.ask("SELECT token, holder FROM djcelery_beatlease")
        except Exception as exc:
            # Each client has error types of its own.
            if type(exc).__name__ in ("OperationalError", "InterfaceError"):
                return False
            raise
        if rows and rows[0][0] != self._token:
            self._token, self._leader = rows[0][0], int(rows[0][1].split(":")[1])
            if self._gone_mono is not None:
                self.report.takeovers_s.append(time.monotonic() - self._gone_mono)
                self._gone_mono = None
        return bool(rows)

    def victim(self, rng: random.Random) -> Any:
        """Return the one that leads, or, one time in three, any."""
        found = [beat for beat in self.running if beat.pid == self._leader]
        beat = found[0] if found and rng.random() < 2 / 3 else rng.choice(self.running)
        if beat.pid == self._leader and self._gone_mono is None:
            self._gone_mono = time.monotonic()
        return beat

    def kill(self, rng: random.Random) -> None:
        """Kill one and start another."""
        beat = self.victim(rng)
        self.check(beat)
        os.killpg(beat.pid, signal.SIGKILL)
        beat.popen.wait()
        self.running[self.running.index(beat)] = self.programs.start(*BEAT)

    def thaw(self, beat: Any) -> None:
        """Let a frozen beat run again, unless it was killed meanwhile."""
        self.look()
        if beat.popen.poll() is None:
            beat.send(signal.SIGCONT)
            if beat.pid == self._leader:
                self.forget_takeover()

    def check(self, beat: Any) -> None:
        """Note a beat that has ended by itself: no fault of others may end it."""
        if beat.popen.poll() is not None:
            self.report.ended.append(f"a beat ended with {beat.popen.returncode}: {beat.text()[-2000:]}")

    def forget_takeover(self) -> None:
        """Don't count the takeover that is under way: the leader is back, or the database was away."""
        self._gone_mono = None

    def stop(self) -> None:
        """End all in good order."""
        for beat in self.running:
            self.check(beat)
            with suppress(ProcessLookupError, pytest.fail.Exception):
                # Before it is ready, SIGTERM ends it as it ends any program.
                beat.wait_for("beat: ", 60)
                beat.send(signal.SIGTERM)
        for beat in self.running:
            if beat.end():
                self.report.ended.append(f"a beat ended with {beat.popen.returncode}: {beat.text()[-2000:]}")


def plan(rng: random.Random, duration_s: float, kills: int, freezes: int, servers: dict[str, int]) -> list:
    """Return what happens when: (seconds, what), in order, nothing in the first two seconds."""
    found = [(rng.uniform(2, duration_s), "beats killed") for _ in range(kills)]
    for what, count in {"beats frozen": freezes, **servers}.items():
        # Spread, so that what one fault leaves behind is seen before the next of its kind.
        found += [((n + rng.uniform(0.2, 0.8)) * duration_s / count, what) for n in range(count)]
    return sorted(found)


def storm(
    programs: Any,
    engine: Any,
    broker: Any,
    *,
    title: str,
    seed: int,
    duration_s: float,
    entry_count: int,
    beats: int = 3,
    server: Any = None,
    lease_s: float = 10.0,
) -> Report:
    """Let *beats* send for *duration_s* seconds of faults, six kills a minute; return the account.

    Args:
        broker: A Redis server of our own, restarted once.
        server: The database's own server, restarted twice; None leaves the database alone.
    """
    rng, began = random.Random(seed), time.monotonic()
    report = Report(title, entry_count, seed, lease_s)
    settings = (
        f"from legacyproj.settings import *\nDJCELERY_BEAT_LEASE_S = {lease_s}\nCELERY_TASK_RESULT_EXPIRES = None\n"
    )
    (programs.project / "legacyproj" / "beats.py").write_text(settings)
    programs.env |= {
        "DATABASE_URL": engine.url,
        "BROKER_URL": broker.url,
        "DJANGO_SETTINGS_MODULE": "legacyproj.beats",
    }
    migrated = programs.run("migrate", "-v0")
    assert migrated.returncode == 0, migrated.stderr
    rows = entries(entry_count, rng, datetime.now(timezone.utc))
    path = programs.root / "entries.json"
    path.write_text(json.dumps(rows))
    created = programs.run("shell", "-v0", "-c", CREATE.format(path=str(path)))
    assert created.returncode == 0, created.stderr
    group = Beats(programs, engine, beats, report)
    wait_until(group.look, 60, "a beat that leads")
    freezes = max(1, round(duration_s / 100))
    servers = {"broker restarts": 1} | ({"database restarts": 2} if server else {})
    _let_loose(group, plan(rng, duration_s, max(2, round(duration_s / 10)), freezes, servers), rng, broker, server)
    until, sent = datetime.now(timezone.utc), Collector(broker)

    def all_sent() -> bool:
        sent.read()
        account(report, rows, sent, until, datetime.now(timezone.utc))
        return not report.lost

    # The report says what is lost.
    with suppress(pytest.fail.Exception):
        wait_until(all_sent, 4 * lease_s + 20, "the last message")
    group.stop()
    sent.read()
    account(report, rows, sent, until, datetime.now(timezone.utc))
    if report.failed:
        # What the tables say about each, for whoever looks for the cause.
        runs = engine.ask(
            "SELECT name, scheduled_at, claimed_at, sent_at, outcome, error, token FROM djcelery_periodicrun"
        )
        _keep(programs, report, runs, broker)
    report.seconds = time.monotonic() - began
    return report


def _keep(programs: Any, report: Report, runs: list[tuple], broker: Any) -> None:
    """Keep what tells of a broken promise: problems, runs and logs, in a folder that the report names."""
    folder = Path(tempfile.mkdtemp(prefix="djcelery-beats-failed-"))
    (folder / "problems.txt").write_text("\n".join([*report.journal, *report.ended, *report.examples]))
    (folder / "runs.txt").write_text("\n".join("\t".join(map(str, run)) for run in runs))
    for number, beat in enumerate(programs.running):
        (folder / f"beat{number}.txt").write_text(beat.text())
    shutil.copy(broker.folder / "log", folder / "redis.txt")
    report.title += f" (see {folder})"


def _let_loose(group: Beats, faults: list, rng: random.Random, broker: Any, server: Any) -> None:
    """Do what the plan says when it says so; what comes late comes at once."""
    pause, began, lease_s = threading.Event(), time.monotonic(), group.report.lease_s
    frozen: list[tuple[float, Any]] = []
    while faults or frozen:
        pause.wait(0.1)
        group.look()
        passed = time.monotonic() - began
        if frozen and frozen[0][0] <= passed:
            group.thaw(frozen.pop(0)[1])
        if not faults or faults[0][0] > passed:
            continue
        _, what = faults.pop(0)
        group.report.faults[what] += 1
        group.report.journal.append(f"{datetime.now(timezone.utc).isoformat()} {what}")
        if what == "beats killed":
            group.kill(rng)
        elif what == "beats frozen":
            beat = group.victim(rng)
            beat.send(signal.SIGSTOP)
            frozen.append((passed + lease_s * rng.uniform(0.3, 1.8), beat))
        else:
            hit = broker if what == "broker restarts" else server
            hit.stop(rng.choice(hit.ways))
            pause.wait(rng.uniform(0.1, 4))
            hit.start()
            if hit is server:
                group.forget_takeover()
