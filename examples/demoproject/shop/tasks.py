"""The shop's tasks: some succeed, one fails, one must be tried again."""

from celery import shared_task

from shop.models import Order

PRICES_CENTS = {"bread": 280, "cheese": 990, "olives": 450, "wine": 1450}


class CardRefused(Exception):
    """The bank doesn't pay."""


class SupplierBusy(Exception):
    """The supplier doesn't answer the telephone."""


@shared_task
def price_of(article, quantity=1):
    """Return the price of *quantity* pieces in cents."""
    return PRICES_CENTS[article] * quantity


@shared_task
def price_order(order_id):
    """Write the total of an order and return it, in cents."""
    order = Order.objects.get(pk=order_id)
    order.total_cents = price_of(order.article, order.quantity)
    order.save(update_fields=["total_cents"])
    return order.total_cents


@shared_task
def add_tax(cents, percent=20):
    """Return the price with tax, in cents."""
    return cents + cents * percent // 100


@shared_task
def receipt(cents):
    """Return the price as a customer reads it."""
    return f"{cents / 100:.2f} EUR"


@shared_task
def total(prices_cents):
    """Return the sum."""
    return sum(prices_cents)


@shared_task
def charge_card(number):
    """Fail, as cards in this shop do."""
    raise CardRefused(f"Card {number} was refused.")


@shared_task(bind=True)
def ask_supplier(self, article, wait_s=1):
    """Return how often the supplier had to be called; the first call is never answered."""
    if self.request.retries == 0:
        raise self.retry(exc=SupplierBusy(article), countdown=wait_s)
    return self.request.retries + 1


@shared_task
def count_orders():
    """Return how many orders there are; beat sends this every five seconds."""
    return Order.objects.count()
