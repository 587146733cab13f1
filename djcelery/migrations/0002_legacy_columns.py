"""Complete the tables that an old release of django-celery made. Going back changes nothing."""

from django.db import migrations

from djcelery.migrations import _operations


class Migration(migrations.Migration):
    dependencies = [("djcelery", "0001_initial")]
    operations = [_operations.CompleteLegacyTables()]
