"""``manage.py celeryresults cleanup``: what ``celery.backend_cleanup`` does, now, and to see what it would do.

Called by the command. Deletes rows of ``TaskMeta``, ``TaskSetMeta`` and ``Chord``, through their managers.
Next: ``docs/reference/commands.rst``.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.db import connections, router
from django.db.models import QuerySet

from djcelery import db, utils
from djcelery.ages import RetentionRule
from djcelery.app import project_app
from djcelery.management.results_progress import Progress, interruptible
from djcelery.managers import retention
from djcelery.managers.retention import Retention
from djcelery.models import Chord, TaskMeta, TaskSetMeta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def age(text: str) -> timedelta:
    """Parse an age from the command line, such as ``12h``.

    Raises:
        argparse.ArgumentTypeError: It is none, or not above 0.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", text)
    try:
        parsed = timedelta(**{_UNITS[match[2] or "s"]: float(match[1])}) if match else timedelta(0)
    except OverflowError:
        parsed = timedelta(0)
    if not parsed:
        raise argparse.ArgumentTypeError(f"{text!r} is no age above 0: write seconds, or 90m, 12h, 30d, 4w")
    return parsed


def _rows(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows above 0")
    return int(text)


def _alias(text: str) -> str:
    if text not in connections:
        raise argparse.ArgumentTypeError(f"{text!r} is not in DATABASES; there are {', '.join(connections)}")
    return text


class Cleanup:
    """Delete expired results now.

    The ages are those of DJCELERY_RETENTION and CELERY_RESULT_EXPIRES. Rows go in short transactions beside running
    workers; SIGINT and SIGTERM end it between two of them, and the next run goes on. No signals are sent.
    """

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Add the options of this sub-command."""
        add = parser.add_argument
        add("--dry-run", action="store_true", help="Count what would be deleted, by rule; delete nothing.")
        add(
            "--older-than",
            type=age,
            metavar="AGE",
            help="One age for all results and saved groups, not the settings': seconds, or 90m, 12h, 30d, 4w.",
        )
        add("--state", action="append", default=[], help="Only results in this state; may be repeated.")
        add(
            "--task",
            action="append",
            default=[],
            metavar="NAME",
            help="Only results of this task, or of all whose names begin so if it ends with *; may be repeated.",
        )
        add(
            "--batch-rows",
            type=_rows,
            default=5000,
            metavar="N",
            help="The most rows per transaction (5000). Slow servers get fewer by themselves.",
        )
        add("--database", type=_alias, metavar="ALIAS", help="The database to clean; default: the router's.")

    def __init__(self, stdout: Any, options: dict[str, Any]) -> None:
        self.stdout = stdout
        self.options = options
        self.older_than: timedelta | None = options["older_than"]
        self.is_narrowed = bool(options["state"] or options["task"])
        configured = project_app().conf
        expires = self.older_than or configured.result_expires
        self.ages = Retention.of((), expires) if self.older_than else Retention.from_settings(expires)
        self.group_ages = Retention.of((), expires)
        self.chord_age = retention.chord_age(configured, configured.result_expires)

    def run(self) -> None:
        """Delete, or count what would be deleted, and write a summary.

        Raises:
            CommandError: Interrupted; the summary is its message.
        """
        if self.options["dry_run"]:
            for number, what in self.counted():
                self.stdout.write(f"{number:>12,}  {what}")
            self.stdout.write("Nothing was deleted: this is a dry run.")
            return
        for model in (TaskMeta, TaskSetMeta, Chord):
            db.ready(connections[self.table(model).db])
        started = time.monotonic()
        progress = Progress(self.stdout)
        totals: dict[str, int] = {}
        with interruptible() as interruption:
            for what, number in self.deleting():
                totals[what] = totals.get(what, 0) + number
                progress.show(f"{sum(totals.values()):,} deleted; now {what}")
                if interruption:
                    break
        progress.clear()
        for what, number in totals.items():
            self.stdout.write(f"{number:>12,}  {what}")
        summary = f"Deleted {sum(totals.values()):,} rows in {time.monotonic() - started:.1f} s."
        interruption.leave(f"{summary} Run it again to go on.")
        self.stdout.write(summary)

    def deleting(self) -> Iterator[tuple[str, int]]:
        """Delete; yield after each batch what was deleted, and how many."""
        rows = self.options["batch_rows"]
        for batch in retention.batches(self.table(TaskMeta), self.ages, rows, **self.narrowed):
            yield self.said("results", batch.rule), batch.rows
        if self.is_narrowed:
            return
        for batch in retention.batches(self.table(TaskSetMeta), self.group_ages, rows):
            yield self.said("saved groups", batch.rule), batch.rows
        if self.with_chords:
            yield "chords", Chord.objects.delete_expired(self.chord_age)

    def counted(self) -> Iterator[tuple[int, str]]:
        """Yield how many rows each rule would delete, and what they are."""
        counts: dict[str, int] = {}
        for part in retention.expired(self.table(TaskMeta), self.ages, **self.narrowed):
            what = self.said("results", part.rule)
            counts[what] = counts.get(what, 0) + part.number()
        if not self.is_narrowed:
            for part in retention.expired(self.table(TaskSetMeta), self.group_ages):
                counts[self.said("saved groups", part.rule)] = part.number()
            if self.with_chords:
                counts["chords"] = self.expired_chords().count()
        for what, number in counts.items():
            yield number, what

    @property
    def narrowed(self) -> dict[str, Any]:
        """What ``retention`` is to look at only."""
        return {"states": self.options["state"], "tasks": self.options["task"]}

    @property
    def with_chords(self) -> bool:
        """Whether chords are cleaned: they wait for running tasks, so never by an age that was meant for results."""
        alias = router.db_for_write(Chord)
        return bool(self.chord_age) and not self.older_than and self.options["database"] in (None, alias)

    def expired_chords(self) -> QuerySet:
        """Return what ``Chord.objects.delete_expired`` would delete."""
        chords = Chord.objects.using(router.db_for_write(Chord))
        return chords.filter(changed_at__lt=retention.before(utils.now(), self.chord_age or 0))

    def table(self, model: Any) -> QuerySet:
        """Return all rows of *model*, on the alias to clean."""
        return model.objects.using(self.options["database"] or router.db_for_write(model))

    def said(self, what: str, rule: RetentionRule | None) -> str:
        """Return the line that names *what* a rule deletes."""
        if rule is None:
            return f"hidden {what}"
        source = "--older-than" if self.older_than else str(rule)
        return f"{what} older than {rule.age} ({source})"
