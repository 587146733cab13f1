"""The migrations for South, which ended with Django 1.6; importing this says what took their place."""

raise ImportError(
    "djcelery.south_migrations is gone: Django runs djcelery.migrations. "
    "Remove SOUTH_MIGRATION_MODULES from the settings, and 'south' from INSTALLED_APPS.",
    name=__name__,
)
