"""Metrics of Celery in the text format of Prometheus, from the history of tasks: a restart resets none of them.

Called by the project's URLs, if it routes ``metrics_view``; needs the extra ``djcelery[metrics]``. Reads only, by a
fixed number of queries; one of them has a row per task name and state.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse, HttpResponseForbidden
from django.utils.crypto import constant_time_compare
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from djcelery import figures, queues
from djcelery.conf import conf
from djcelery.managers.history import BOUNDS_S
from djcelery.managers.history_reads import COLUMNS, Lengths, NameFigures, add_row
from djcelery.models import TaskHistory

#: Names that have series of their own; those that were seen first, so that no name ever changes sides.
MAX_NAMES = 500
OTHER, UNKNOWN = "(other)", "(unknown)"
PERMISSION = "djcelery.view_taskstate"


@never_cache
@require_safe
def metrics_view(request: HttpRequest) -> HttpResponse:
    """Return all metrics to whoever has the token of ``DJCELERY_METRICS_TOKEN`` or may see tasks; 403 to others.

    Raises:
        ImproperlyConfigured: ``prometheus-client`` is not installed.

    Database: 11 queries at most; more where entries of the schedule are overdue. The broker is asked for less than a
        second.
    """
    if not is_allowed(request):
        return HttpResponseForbidden(
            "Give the token of DJCELERY_METRICS_TOKEN, or log in as somebody who may see tasks.\n"
        )
    client = _client()
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(Collector(client))
    return HttpResponse(client.generate_latest(registry), content_type=client.CONTENT_TYPE_LATEST)


def is_allowed(request: HttpRequest) -> bool:
    """Tell whether *request* has the token, or is of somebody who may see tasks."""
    token = conf.DJCELERY_METRICS_TOKEN
    scheme, _space, given = request.headers.get("Authorization", "").partition(" ")
    if token and scheme.lower() == "bearer":
        return constant_time_compare(given.strip(), token)
    # A project without sessions has no user at all.
    user = getattr(request, "user", None)
    return user is not None and user.is_active and user.has_perm(PERMISSION)


def _client() -> Any:
    try:
        import prometheus_client.core
    except ImportError as exc:
        raise ImproperlyConfigured(
            "The metrics need prometheus-client. Install it with djcelery: pip install 'djcelery[metrics]'."
        ) from exc
    return prometheus_client


class Collector:
    """What Prometheus gets, read anew each time."""

    def __init__(self, client: Any) -> None:
        self.core = client.core

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics."""
        from djcelery.app import project_app

        app = project_app()
        yield from self._tasks()
        yield from self._workers()
        yield from self._queues(app)
        yield from self._beat(app)
        yield from self._cameras()

    def _tasks(self) -> Iterator[Any]:
        total = self._counter("djcelery_tasks", "Tasks that came to a state, since the history began.", "name", "state")
        runtime = self._histogram("djcelery_task_runtime_seconds", "How long tasks ran.")
        waiting = self._histogram(
            "djcelery_task_waiting_seconds", "How long tasks waited between their time and their start."
        )
        for figures_ in _by_name():
            for state, count in sorted(figures_.counts.items()):
                total.add_metric([figures_.name, state], count)
            for family, lengths in ((runtime, figures_.runtime), (waiting, figures_.waiting)):
                if lengths.count:
                    family.add_metric([figures_.name], buckets=_buckets(lengths), sum_value=lengths.total)
        yield from (total, runtime, waiting)

    def _workers(self) -> Iterator[Any]:
        found = figures.workers()
        states = Counter("online" if worker.is_alive() else "offline" for worker in found)
        family = self._gauge("djcelery_workers", "Workers that the camera knows, by state.", "state")
        for state in ("online", "offline"):
            family.add_metric([state], states[state])
        yield family
        active = sum(worker.active or 0 for worker in found if worker.is_alive())
        yield self._gauge("djcelery_running_tasks", "Tasks that the workers online say they run.", value=active)

    def _queues(self, app: Any) -> Iterator[Any]:
        broker = queues.look(app, figures.queues_seen()[0])
        yield self._gauge("djcelery_broker_up", "Whether the broker answered.", value=not broker.is_away)
        messages = self._gauge("djcelery_queue_messages", "Messages in a queue.", "queue")
        consumers = self._gauge("djcelery_queue_consumers", "Consumers of a queue, where the broker tells.", "queue")
        oldest = self._gauge("djcelery_queue_oldest_seconds", "Age of the oldest message, where it is known.", "queue")
        for queue in broker.queues:
            for family, value in ((messages, queue.messages), (consumers, queue.consumers), (oldest, queue.oldest_s)):
                if value is not None:
                    family.add_metric([queue.name], value)
        yield from (messages, consumers, oldest)

    def _beat(self, app: Any) -> Iterator[Any]:
        leads = self._gauge("djcelery_beat_leads", "Whether a beat holds the lease.", "lease")
        age = self._gauge("djcelery_beat_lease_age_seconds", "Seconds since the lease was renewed.", "lease")
        for lease in figures.leases():
            leads.add_metric([lease.name], lease.is_held)
            age.add_metric([lease.name], lease.age_s)
        yield from (leads, age)
        schedule = figures.schedule(app)
        for name, help_text, value in (
            ("overdue", "Enabled entries of the schedule whose time has passed.", len(schedule.overdue)),
            ("held_out", "Enabled entries that beat can't run.", len(schedule.held_out)),
            ("unsent", "Runs that were claimed over a minute ago and are not sent.", schedule.unsent),
        ):
            yield self._gauge(f"djcelery_schedule_{name}", help_text, value=value)

    def _cameras(self) -> Iterator[Any]:
        found = figures.cameras()
        for name, help_text in (
            ("events", "Events that arrived."),
            ("malformed", "Events that can't be read."),
            ("missed", "Tasks that ran and of which no event came."),
            ("dropped", "Tasks that were too many to keep until they could be written."),
            ("refused", "Rows that the database refused."),
        ):
            counter = self._counter(f"djcelery_camera_{name}", help_text, "camera")
            for camera in found:
                counter.add_metric([camera.name], getattr(camera, name))
            yield counter
        age = self._gauge("djcelery_camera_shutter_age_seconds", "Seconds since the camera wrote.", "camera")
        for camera in found:
            age.add_metric([camera.name], figures.seconds_since(camera.shutter_at) or 0.0)
        yield age

    def _counter(self, name: str, text: str, *labels: str) -> Any:
        return self.core.CounterMetricFamily(name, text, labels=labels)

    def _gauge(self, name: str, text: str, *labels: str, value: float | None = None) -> Any:
        return self.core.GaugeMetricFamily(name, text, value=value, labels=labels or None)

    def _histogram(self, name: str, text: str) -> Any:
        return self.core.HistogramMetricFamily(name, text, labels=("name",))


def _by_name() -> list[NameFigures]:
    """Return the totals of the names that were seen first, and of all others together.

    By the order of their rows, and not by how frequent they are: a name that changed sides would make two counters
    jump. The rows of totals are never deleted.
    """
    found: dict[str, NameFigures] = {}
    rest: NameFigures | None = None
    for name, *values in TaskHistory.objects.totals().order_by("pk").values_list(*COLUMNS):
        figures_ = found.get(name)
        if figures_ is None and len(found) < MAX_NAMES:
            figures_ = found[name] = NameFigures(name or UNKNOWN)
        elif figures_ is None:
            rest = figures_ = rest or NameFigures(OTHER)
        add_row(figures_, *values)
    return [*found.values(), *([rest] if rest else [])]


def _buckets(lengths: Lengths) -> list[tuple[str, float]]:
    """Return the cumulative counts by upper bound, as Prometheus wants them; the last is without bound."""
    counts, below, found = lengths.histogram.counts, 0, []
    for bucket, bound in enumerate(BOUNDS_S):
        below += counts[bucket]
        found.append((f"{bound:g}", float(below)))
    # Prometheus takes it for the number of all, which a histogram that was cut short would not have.
    return [*found, ("+Inf", float(max(below + counts[len(BOUNDS_S)], lengths.count)))]
