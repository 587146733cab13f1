"""A project as django-celery's manual had it: ``setup_loader()`` in the settings, legacy names only."""
