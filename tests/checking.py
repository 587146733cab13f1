"""How tests look at what was said: a system check's message, the records of the log."""

from __future__ import annotations


def only(found, id_, kind):
    """The one message of *found*, which has the id and the level, and says what to do."""
    (message,) = found
    assert (message.id, type(message)) == (f"djcelery.{id_}", kind)
    assert message.hint
    return message


def said(caplog):
    """Return the records of djcelery's own loggers.

    Celery and kombu log, too, and what they say once in a process depends on the tests before.
    """
    return [record for record in caplog.records if record.name.startswith("djcelery")]
