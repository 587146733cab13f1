"""A project as Celery's manual has it: an app of its own in ``modernproj/celery.py``."""

from modernproj.celery import app as celery_app

__all__ = ("celery_app",)
