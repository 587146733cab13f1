"""Chords of the database result backend: parts are counted, and the callback is sent once.

Called by Celery where a chord is started, and in the worker after each task of a header. Writes
``Chord`` and ``ChordPart`` through ``managers``; publishes the callback. The callback gets what the
parts returned, kept apart from results, so it needs no result row: tasks of a header may ignore
their results, redact them or keep them short.
Next: ``docs/explain/chords.rst``.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery.canvas import maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, allow_join_result, result_from_tuple
from celery.utils.functional import _regen  # the type of a header that is a generator
from django.db import Error
from django.utils.functional import classproperty

from djcelery.backends import redaction
from djcelery.exceptions import ResultUndecodable
from djcelery.managers.chords import LAST, Turn
from djcelery.picklefield import Unreadable

__all__ = ("ChordMixin",)

logger = logging.getLogger(__name__)

#: How long a part that is delivered again waits for its earlier delivery to send the callback, in seconds.
DISPUTE_S = 2.0


class ChordMixin:
    """What a Celery result backend must do for chords, on the tables of chords."""

    # Looked up on use: Celery may import this module before ``django.setup()``.
    @classproperty
    def ChordModel(cls) -> Any:
        """The model of chords."""
        from djcelery.models import Chord

        return Chord

    def apply_chord(self: Any, header_result_args: tuple, body: Any, **kwargs: Any) -> None:
        """Note the chord before its header is sent.

        A header that is a generator stays as it is: unrolled, it would have nothing left to send.

        Database: one transaction of two statements, outside the caller's (see ``db.outside_transaction``).
        """
        self.ensure_chords_allowed()
        group_id, results = header_result_args[0], header_result_args[1]
        header = None
        if not isinstance(results, _regen):
            result = self.app.GroupResult(*header_result_args)
            if any(isinstance(child, GroupResult) for child in result.results):
                header = self._text("header", result.as_tuple())
        self.ChordModel._default_manager.start(group_id, header)

    def set_chord_size(self: Any, group_id: str, chord_size: int) -> None:
        """Note the number of parts; Celery knows it when it is about to send the last one. One statement."""
        self.ChordModel._default_manager.set_size(group_id, chord_size)

    def add_to_chord(self: Any, chord_id: str, result: Any) -> None:
        """Count one part more: a task of the header adds *result* to its own chord. One statement."""
        self.ChordModel._default_manager.add_part(chord_id)

    def on_chord_part_return(self: Any, request: Any, state: str, result: Any, **kwargs: Any) -> None:
        """Store what a task of a header returned; the last one sends the callback, or its failure.

        Raises:
            kombu.exceptions.EncodeError: The serializer can't carry *result*; Celery then fails the task.
            django.db.Error: The part could not be stored, after retries.

        Database: see ``ChordManager.part_returned``; for the last part two SELECTs and one transaction more.
        """
        if not request.id or not request.group:
            return
        index = request.group_index
        part = {
            "group_id": request.group,
            "task_id": request.id,
            "position": index if isinstance(index, int) else LAST,
            "state": state,
            **self._text("value", redaction.part_value(self, request, state, result)),
        }
        # Celery 5.7's loop of ``result_backend_always_retry``; 5.6 has it in other methods only.
        retried = getattr(self, "_ensure_retryable", lambda work, *args: work(*args))
        turn = retried(self._turn, part)
        if turn is None:
            return
        self._finish_chord(turn, maybe_signature(request.chord, app=self.app))
        try:
            self.ChordModel._default_manager.sent(turn)
        except Error:
            # The callback is on its way: an error here must not fail the task of this part.
            logger.exception("Could not note that the callback of chord %s was sent.", turn.group_id)

    def _turn(self: Any, part: dict[str, Any]) -> Turn | None:
        """Store *part* and return the turn to send the callback, after a dispute with an earlier delivery."""
        chords = self.ChordModel._default_manager
        turn = chords.part_returned(part)
        began, pause = time.monotonic(), 0.02
        while turn is not None and turn.disputed:
            time.sleep(pause)
            pause *= 1.5
            turn = chords.part_returned(part, take_over=time.monotonic() - began > DISPUTE_S)
        return turn

    def _finish_chord(self: Any, turn: Turn, callback: Any) -> None:
        """Send *callback* with the values of the parts, or store why it can't run as its failure."""
        try:
            values = self._chord_values(turn.group_id)
        except Exception as exc:  # noqa: BLE001 - whatever it was, the callback must end
            error = exc if isinstance(exc, ChordError) else _chord_error(f"Join error: {exc!r}", exc)
            self._fail_chord(turn, callback, error)
            return
        # Celery 5.7's way to wait for a broker that refuses; in 5.6 the policy of the task alone decides.
        publish = getattr(self.app.amqp, "_retry_publish", lambda send, *args: send(*args))
        try:
            publish(callback.delay, values)
        except Exception as exc:  # noqa: BLE001 - as above
            self._fail_chord(turn, callback, _chord_error(f"Callback error: {exc!r}", exc))

    def _fail_chord(self: Any, turn: Turn, callback: Any, error: ChordError) -> None:
        logger.error("Chord %s failed: %s", turn.group_id, error)
        self.chord_error_from_stack(callback, error)

    def _chord_values(self: Any, group_id: str) -> list[Any]:
        """Return what the parts returned, in the shape of the header.

        Raises:
            ChordError: A part failed or was revoked; the first one in the header's order.
        """
        header, parts = self.ChordModel._default_manager.parts(group_id)
        values = []
        for part in parts:
            if part["state"] in self.EXCEPTION_STATES:
                # All of these but RETRY, in which no part ends, are failures of the chord.
                cause = self.exception_to_python(self._stored("value", part))
                raise _chord_error(f"Dependency {part['task_id']} raised {cause!r}", cause)
            values.append(self._value("value", part))
        if header["header"] is None:
            return values
        shape = result_from_tuple(self._value("header", header), self.app)
        return self._shaped(shape, {part["task_id"]: value for part, value in zip(parts, values, strict=True)})

    def _shaped(self: Any, shape: GroupResult, values: dict[str, Any]) -> list[Any]:
        """Return *values* by task id as lists nested like *shape*; parts that a task added come last."""
        added = dict(values)

        def value_of(result: Any) -> Any:
            if isinstance(result, GroupResult):
                return [value_of(child) for child in result.results]
            added.pop(result.id, None)
            if result.id in values:
                return values[result.id]
            with allow_join_result():
                return result.get(timeout=self.app.conf.result_chord_join_timeout)

        return [*(value_of(child) for child in shape.results), *added.values()]

    def _text(self: Any, column: str, value: Any) -> dict[str, str | None]:
        return {
            column: self._encoded(value),
            "content_type": self.content_type,
            "content_encoding": self.content_encoding,
        }

    def _stored(self: Any, column: str, row: dict[str, Any]) -> Any:
        return self._decoded(row[column], row["content_type"], row["content_encoding"])

    def _value(self: Any, column: str, row: dict[str, Any]) -> Any:
        value = self._stored(column, row)
        if isinstance(value, Unreadable):
            raise ResultUndecodable(str(value))
        return value


def _chord_error(message: str, cause: BaseException) -> ChordError:
    error = ChordError(message)
    error.__cause__ = cause
    return error
