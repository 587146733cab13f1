"""The table of orders."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Create ``Order``."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Order",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("article", models.CharField(max_length=50)),
                ("quantity", models.PositiveIntegerField(default=1)),
                ("total_cents", models.PositiveIntegerField(editable=False, null=True)),
                ("placed_at", models.DateTimeField(auto_now_add=True)),
            ],
        ),
    ]
