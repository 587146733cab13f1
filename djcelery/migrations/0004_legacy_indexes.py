"""Create the indexes that old tables lack, without a lock on PostgreSQL. Going back changes nothing."""

from django.db import migrations

from djcelery.migrations import _operations


class Migration(migrations.Migration):
    # CREATE INDEX CONCURRENTLY can't run in a transaction.
    atomic = False
    dependencies = [("djcelery", "0003_result_content_type")]
    operations = [_operations.IndexLegacyTables()]
