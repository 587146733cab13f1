"""What is due becomes runs, and runs are sent: one round of it.

Called by the leading ``scheduler`` in each tick. Decides by ``missed`` and ``overlap``, claims by ``claims``, sends
by ``outbox``.
Next: ``docs/explain/life-of-a-schedule-change.rst``.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.db import Error

from djcelery.schedulers import missed, overlap
from djcelery.schedulers.book import Book
from djcelery.schedulers.claims import PAGE_ROWS, Claims, Firing, Run
from djcelery.schedulers.nexttime import TICK
from djcelery.schedulers.outbox import Outbox
from djcelery.schedulers.plans import Plan

logger = logging.getLogger(__name__)

#: Entries of one round, and about as many runs. More that are due at once are claimed in several, so that few wait
#: for their message.
ROUND_ENTRIES = 1000
#: A firing that is no later than this was not missed: beat was busy with others.
BUSY = timedelta(seconds=5)


class Decider:
    """Decides which firings of due entries are sent. Writes nothing, so the dry run asks it, too."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        #: What was decided not to run, by the reason.
        self.passed: dict[str, list[Firing]] = {}

    def decide(self, due: list[Plan], now: datetime) -> list[Firing]:
        """Return what to send of the entries that are *due*; ``passed`` gets the rest.

        Database: one SELECT if entries ask not to overlap.
        """
        instants = {plan.pk: self._useful(plan, self._instants(plan, now - plan.delay), now) for plan in due}
        careful = [plan for plan in due if plan.rules.no_overlap and instants[plan.pk]]
        running = overlap.still_running(self.alias, careful, now) if careful else {}
        for plan in careful:
            *surplus, latest = instants[plan.pk]
            instants[plan.pk] = [latest]
            if plan.pk in running:
                surplus.append(latest)
                instants[plan.pk] = []
                logger.info("beat: %s passed over: its run %s is not done.", plan.name, running[plan.pk])
            if surplus:
                self._pass_over(plan, surplus[-1], "the run before is not known to be done (no overlap)")
        return [
            Firing(plan.pk, plan.name, instant, plan.rules.one_off)
            for plan in due
            for instant in (instants[plan.pk][-1:] if plan.rules.one_off else instants[plan.pk])
        ]

    def _useful(self, plan: Plan, instants: list[datetime], now: datetime) -> list[datetime]:
        """Return those of *instants* whose message would not have expired by now."""
        seconds = plan.options.expire_seconds
        if seconds is None or not instants:
            return instants
        useful = [instant for instant in instants if instant + timedelta(seconds=seconds) > now]
        if len(useful) < len(instants):
            self._pass_over(plan, instants[-len(useful) - 1], "missed; its message would have expired")
        return useful

    def _instants(self, plan: Plan, now: datetime) -> list[datetime]:
        """Return the instants of *plan* to fire, of those that are due at *now*."""
        due, expires, rules = plan.due, plan.options.expires, plan.rules
        if due is None:
            return []
        if now - due <= BUSY and ((following := plan.schedule.next_after(due)) is None or following > now):
            return [due]
        until = now if expires is None else min(now, expires - TICK)
        decision = missed.decide(rules.missed_runs, rules.grace, plan.schedule, plan.since, until)
        logger.debug(
            "beat: %s, decided since %s: %d to send, %d passed over, %d too many.",
            plan.name,
            plan.since,
            len(decision.fire),
            decision.skipped_count,
            decision.dropped_count,
        )
        if decision.dropped_count:
            logger.warning(
                "beat: %s missed more than %d runs; %d older ones are dropped.",
                plan.name,
                missed.CAP,
                decision.dropped_count,
            )
        if decision.skipped_count or decision.dropped_count:
            before = decision.fire[0] - TICK if decision.fire else until
            last = plan.schedule.last_until(before)
            if last is not None and last > plan.since:
                self._pass_over(plan, last, f"missed; the policy is {rules.missed_runs or missed.ONCE}")
        return decision.fire

    def _pass_over(self, plan: Plan, instant: datetime, why: str) -> None:
        self.passed.setdefault(why, []).append(Firing(plan.pk, plan.name, instant))


class Dispatcher(Decider):
    """Claims and sends what the book says is due."""

    def __init__(self, alias: str, book: Book, claims: Claims, outbox: Outbox) -> None:
        super().__init__(alias)
        self.book, self.claims, self.outbox = book, claims, outbox
        self._is_trying_again = False

    def send_due(self, now: datetime) -> int:
        """Send what is due, up to 1,000 entries; return how many entries were.

        Raises:
            LeaseLost: Another beat leads; what is due stays due.
            django.db.Error: The same; runs may be claimed and unsent.

        Database: one transaction of three statements, an UPDATE per 500 runs that marks them, and one SELECT if
            entries ask not to overlap; two statements per reason if firings are passed over.
        """
        agenda = self.book.agenda
        due = agenda.take_due(now, ROUND_ENTRIES)
        if not due:
            return 0
        try:
            firings = self.decide(due, now)
            due = self._cut(due, firings)
            runs = self.claims.claim(firings, now)
        except Exception as exc:
            for plan in due:
                agenda.put(plan)
            if isinstance(exc, Error):
                # If the connection broke at the very end, the runs are claimed.
                self.outbox.try_at_once()
            raise
        fired = {firing.task_pk for firing in firings}
        for plan in due:
            plan.decided(now - plan.delay)
            if plan.rules.one_off and plan.pk in fired:
                self.book.remove(plan.pk)
            else:
                agenda.put(plan)
        plans = {plan.pk: plan for plan in due}
        self.outbox.send((run, plans[run.task_pk]) for run in runs)
        self.book.write_errors()
        self._record()
        return len(due)

    def _cut(self, due: list[Plan], firings: list[Firing]) -> list[Plan]:
        """Put off entries for which there are too many *firings* in this round; return the others."""
        if len(firings) <= ROUND_ENTRIES:
            return due
        late = {firing.task_pk for firing in firings[ROUND_ENTRIES:]} - {firings[0].task_pk}
        firings[:] = [firing for firing in firings if firing.task_pk not in late]
        for plan in due:
            if plan.pk in late:
                self.book.agenda.put(plan)
        return [plan for plan in due if plan.pk not in late]

    def _record(self) -> None:
        """Write to the history what was passed over: of each entry the latest instant."""
        passed, self.passed = self.passed, {}
        for why, firings in passed.items():
            logger.info("beat: runs of %d tasks passed over: %s.", len(firings), why)
            self.claims.record_skipped(firings, why)

    # runs that were claimed and not sent

    def send_unsent(self, now: datetime) -> None:
        """Send what was claimed and not sent, or drop it by the missed-run policy; 1,000 runs at a time.

        Such runs are left by a beat that was killed, and by this one while the broker is away. Those of a task whose
        runs fail by themselves are passed over until it is their turn.

        Raises:
            LeaseLost: Another beat leads.

        Database: one SELECT, one more if tasks are disabled or gone; an UPDATE per outcome and reason.
        """
        runs = self.claims.unsent(PAGE_ROWS, but_of=self.outbox.waiting())
        plans = self.book.agenda.plans
        gone = {run.task_pk for run in runs if run.task_pk not in plans}
        others = self.book.plans_of(gone, now) if gone else {}
        to_send: list[tuple[Run, Plan]] = []
        for run in runs:
            plan, is_enabled = others.get(run.task_pk, (plans.get(run.task_pk), run.task_pk in plans))
            if plan is None:
                what = "can't be run any more" if run.task_pk in others else "was deleted"
                self.outbox.drop(run, f"The periodic task {what}.")
            elif not is_enabled and not plan.rules.one_off:
                self.outbox.drop(run, "The periodic task was disabled before its run could be sent.")
            elif not self._is_worth_sending(plan, run, now):
                self.outbox.drop(run, "It could not be sent within the grace time.")
            else:
                to_send.append((run, plan))
        if to_send:
            level = logging.DEBUG if self._is_trying_again else logging.INFO
            logger.log(level, "beat: sending %d runs that were claimed and not sent.", len(to_send))
        is_whole = self.outbox.send(to_send)
        self.book.write_errors()
        self._is_trying_again = not is_whole
        self.outbox.looked(has_more=len(runs) >= PAGE_ROWS)

    def _is_worth_sending(self, plan: Plan, run: Run, now: datetime) -> bool:
        rules, effective = plan.rules, now - plan.delay
        return missed.is_worth_sending(rules.missed_runs, rules.grace, plan.schedule, run.scheduled_at, effective)
