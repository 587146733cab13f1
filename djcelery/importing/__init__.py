"""The rows of django-celery-results and django-celery-beat, copied into djcelery's own tables.

Called by ``manage.py celeryimport``. Reads their tables without their code, by what the database says of
them, and never writes to them; writes ``TaskMeta`` and ``TaskSetMeta``, or periodic tasks and their schedules.
Next: ``docs/coming-from-results-and-beat.rst``.
"""

from djcelery.importing.beat import BeatImport
from djcelery.importing.results import ResultImport
from djcelery.importing.runs import Listed, Summary, TableUnknown

__all__ = ("BeatImport", "Listed", "ResultImport", "Summary", "TableUnknown")
