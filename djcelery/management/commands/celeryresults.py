"""``manage.py celeryresults``: delete old results now, or rewrite legacy ones.

Each sub-command is a module beside ``commands``. Next: ``docs/reference/commands.rst``.
"""

from __future__ import annotations

from djcelery.management import results_cleanup, results_convert
from djcelery.management.subcommands import SubcommandsCommand


class Command(SubcommandsCommand):
    """Work on stored results."""

    help = "Work on the results that the database result backend has stored."
    subcommands = {"cleanup": results_cleanup.Cleanup, "convert": results_convert.Convert}
