"""The broker in Django's database, which this release doesn't have; importing this says what to do."""

raise ImportError(
    "djcelery.transport, the broker in Django's database, is not part of this release. "
    "Remove it from INSTALLED_APPS, and write a BROKER_URL of RabbitMQ or Redis.",
    name=__name__,
)
