"""``manage.py celerybeat``: the periodic task scheduler."""

from djcelery.management.base import ProgramCommand
from djcelery.management.programs import BEAT


class Command(ProgramCommand):
    """Run the periodic task scheduler."""

    help = "Run the Celery periodic task scheduler."
    program = BEAT
