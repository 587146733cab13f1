"""What the shop remembers."""

from django.db import models


class Order(models.Model):
    """One order. ``price_order`` writes the total, in cents, soon after the order is placed."""

    article = models.CharField(max_length=50)
    quantity = models.PositiveIntegerField(default=1)
    total_cents = models.PositiveIntegerField(null=True, editable=False)
    placed_at = models.DateTimeField(auto_now_add=True)

    def __str__(self):
        return f"{self.quantity} × {self.article}"
