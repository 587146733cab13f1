"""The varied load of the demo, and what has to come out of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from celery import chain, chord, group, states
from django.db import transaction

from demoproject.celery import app
from djcelery.models import TaskMeta, TaskSetMeta
from shop import tasks
from shop.models import Order

ARTICLES = tuple(tasks.PRICES_CENTS)


@dataclass
class Sent:
    """Something that was sent: how to read its outcome, and what that must be."""

    kind: str
    what: str
    expected: Any
    #: Returns the outcome, or None while there is none.
    probe: Callable[[], Any]
    outcome: Any = None

    @property
    def right(self) -> bool:
        """Whether the outcome is there and is the expected one."""
        return self.outcome == self.expected


def outcome_of(task_id: str, awaited: frozenset[str] = states.READY_STATES) -> tuple[str, Any] | None:
    """Return state and value of a task from its row, or None until the state is an awaited one.

    An exception's value is the name of its class.
    """
    row = TaskMeta.objects.filter(task_id=task_id, status__in=awaited).first()
    if row is None:
        return None
    value = app.AsyncResult(task_id).result
    return row.status, type(value).__name__ if isinstance(value, BaseException) else value


def outcome_of_group(group_id: str) -> tuple[str, Any] | None:
    """Return the values of a saved group once all of its tasks have ended."""
    result = app.GroupResult.restore(group_id)
    if result is None or not result.ready():
        return None
    return ("SUCCESS" if result.successful() else "FAILURE"), [child.result for child in result.results]


class Load:
    """Sends one thing after another and keeps the account."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._articles = itertools.cycle(ARTICLES)
        self._senders = itertools.cycle(
            [
                self._order,
                self._success,
                self._failure,
                self._retry,
                self._group,
                self._chain,
                self._chord,
            ]
        )

    def send_next(self) -> Sent:
        """Send the next kind of load; the first one is a task that waits for its retry for an hour."""
        sent = next(self._senders)() if self.sent else self._long_retry()
        self.sent.append(sent)
        return sent

    def news(self) -> list[Sent]:
        """Return what has got its outcome since the last call."""
        found = []
        for sent in self.pending():
            sent.outcome = sent.probe()
            if sent.outcome is not None:
                found.append(sent)
        return found

    def pending(self) -> list[Sent]:
        """Return what has no outcome yet."""
        return [sent for sent in self.sent if sent.outcome is None]

    def _order(self) -> Sent:
        article = next(self._articles)
        with transaction.atomic():
            order = Order.objects.create(article=article, quantity=3)
            # The worker must not look for the order before it is committed.
            tasks.price_order.delay_on_commit(order.pk)

        def probe() -> int | None:
            return Order.objects.values_list("total_cents", flat=True).get(pk=order.pk)

        return Sent("order", f"price_order of order {order.pk}", tasks.PRICES_CENTS[article] * 3, probe)

    def _success(self) -> Sent:
        article = next(self._articles)
        return self._task("success", tasks.price_of.s(article), states.SUCCESS, tasks.PRICES_CENTS[article])

    def _failure(self) -> Sent:
        return self._task("failure", tasks.charge_card.s("4000-0002"), states.FAILURE, "CardRefused")

    def _retry(self) -> Sent:
        return self._task("retry", tasks.ask_supplier.s(next(self._articles)), states.SUCCESS, 2)

    def _long_retry(self) -> Sent:
        return self._task("waiting", tasks.ask_supplier.s("truffles", wait_s=3600), states.RETRY, "SupplierBusy")

    def _task(self, kind: str, signature: Any, state: str, value: Any) -> Sent:
        task_id = signature.apply_async().id
        awaited = states.READY_STATES | {state}
        return Sent(kind, f"{signature!r} {task_id}", (state, value), lambda: outcome_of(task_id, awaited))

    def _group(self) -> Sent:
        result = group(tasks.price_of.s(article, 2) for article in ARTICLES).apply_async()
        result.save()
        expected = ("SUCCESS", [price * 2 for price in tasks.PRICES_CENTS.values()])
        return Sent("group", f"{len(ARTICLES)} × price_of {result.id}", expected, lambda: outcome_of_group(result.id))

    def _chain(self) -> Sent:
        article = next(self._articles)
        work = chain(tasks.price_of.s(article), tasks.add_tax.s(20), tasks.receipt.s())
        task_id = work.apply_async().id
        expected = ("SUCCESS", f"{tasks.PRICES_CENTS[article] * 1.2 / 100:.2f} EUR")
        return Sent("chain", f"price_of | add_tax | receipt {task_id}", expected, lambda: outcome_of(task_id))

    def _chord(self) -> Sent:
        work = chord((tasks.price_of.s(article) for article in ARTICLES), tasks.total.s())
        task_id = work.apply_async().id
        expected = ("SUCCESS", sum(tasks.PRICES_CENTS.values()))
        return Sent("chord", f"{len(ARTICLES)} × price_of, then total {task_id}", expected, lambda: outcome_of(task_id))


def saved_groups() -> int:
    """Return how many group results are in the database."""
    return TaskSetMeta.objects.count()
