"""``manage.py celeryctl``: control and inspect workers, as in django-celery 2.x."""

from __future__ import annotations

from djcelery.management.commands.celery import Command as UmbrellaCommand


class Command(UmbrellaCommand):
    """Control and inspect workers."""

    help = (
        "Control and inspect workers. The sub-commands of old (apply, inspect registered_tasks, "
        "inspect enable_events, …) are accepted; purge doesn't ask."
    )

    def translated(self, words: list[str]) -> list[str]:
        # Scripts of 2.x call "celeryctl purge" with nobody there to answer.
        return ["purge", "--force", *words[1:]] if words[0] == "purge" else words
