"""Tables of settings that django-celery and Celery 2 and 3 knew: today's names, and what has no effect any more.

Read by ``conf`` and by the system checks. Only data.
Next: ``docs/explain/configuration.rst``.
"""

from __future__ import annotations

#: Today's names of legacy settings that Celery itself doesn't translate, first match wins.
RENAMED: dict[str, str] = {
    "CELERY_BACKEND": "CELERY_RESULT_BACKEND",
    "CELERYD_ETA_SCHEDULER": "CELERY_WORKER_TIMER",
    "CELERYD_ETA_SCHEDULER_PRECISION": "CELERY_WORKER_TIMER_PRECISION",
    "CELERY_BROADCAST_EXCHANGE": "CELERY_CONTROL_EXCHANGE",
    "CASSANDRA_COLUMN_FAMILY": "CELERY_CASSANDRA_TABLE",
    "BROKER_BACKEND": "CELERY_BROKER_TRANSPORT",
    "CARROT_BACKEND": "CELERY_BROKER_TRANSPORT",
    "AMQP_SERVER": "CELERY_BROKER_HOST",
    "AMQP_PORT": "CELERY_BROKER_PORT",
    "AMQP_USER": "CELERY_BROKER_USER",
    "AMQP_PASSWORD": "CELERY_BROKER_PASSWORD",
    "AMQP_VHOST": "CELERY_BROKER_VHOST",
}

#: Legacy settings that djcelery's own commands read, as the default of an option.
COMMAND_DEFAULTS: dict[str, str] = {
    "CELERYD_LOG_FILE": "--logfile of celeryd",
    "CELERYD_LOG_LEVEL": "--loglevel of celeryd",
    "CELERYBEAT_LOG_FILE": "--logfile of celerybeat",
    "CELERYBEAT_LOG_LEVEL": "--loglevel of celerybeat",
}

#: Legacy settings that have no effect any more, and what to do instead.
REMOVED: dict[str, str] = {
    "BROKER_INSIST": "Remove it; brokers no longer redirect.",
    "CASSANDRA_DETAILED_MODE": "Remove it; Celery stores details always.",
    "CELERYD_AUTORELOADER": "Remove it; use celeryd --autoreload.",
    "CELERYD_BOOT_STEPS": "Add boot steps to app.steps['worker'].",
    "CELERYD_FORCE_EXECV": "Write CELERY_WORKER_POOL_START_METHOD = 'spawn'.",
    "CELERYD_MEDIATOR": "Remove it; the mediator went with Celery 3.0.",
    "CELERYMON_LOG_FILE": "Remove it; celerymon is gone, celerycam and the admin took its place.",
    "CELERYMON_LOG_FORMAT": "Remove it; celerymon is gone, celerycam and the admin took its place.",
    "CELERYMON_LOG_LEVEL": "Remove it; celerymon is gone, celerycam and the admin took its place.",
    "CELERY_AMQP_TASK_RESULT_CONNECTION_MAX": "Write CELERY_BROKER_POOL_LIMIT.",
    "CELERY_AMQP_TASK_RESULT_EXPIRES": "Write CELERY_RESULT_EXPIRES.",
    "CELERY_BROADCAST_EXCHANGE_TYPE": "Remove it; remote control always uses a fanout exchange.",
    "CELERY_BROADCAST_QUEUE": "Remove it; every worker names its own control queue.",
    "CELERY_CHORD_PROPAGATES": "Remove it; chords always propagate errors.",
    "CELERY_QUEUE_HA_POLICY": "Declare the policy on the broker, or as queue_arguments of CELERY_TASK_QUEUES.",
    "CELERY_SEND_TASK_ERROR_EMAILS": "Add Django's AdminEmailHandler to the logger 'celery' in LOGGING.",
    "CELERY_TASK_ERROR_WHITELIST": "Filter in the logging handler that sends the mails.",
    "SEND_CELERY_TASK_ERROR_EMAILS": "Add Django's AdminEmailHandler to the logger 'celery' in LOGGING.",
    "CELERYD_DAEMON_LOG_LEVEL": "Use the option --loglevel.",
    "CELERY_AMQP_EXCHANGE": "Write CELERY_TASK_DEFAULT_EXCHANGE.",
    "CELERY_AMQP_EXCHANGE_TYPE": "Write CELERY_TASK_DEFAULT_EXCHANGE_TYPE.",
    "CELERY_AMQP_CONSUMER_QUEUES": "Write CELERY_TASK_QUEUES.",
    "CELERY_AMQP_CONSUMER_ROUTING_KEY": "Write CELERY_TASK_QUEUES.",
    "CELERY_AMQP_PUBLISHER_ROUTING_KEY": "Write CELERY_TASK_DEFAULT_ROUTING_KEY.",
    "CELERY_AMQP_CONNECTION_TIMEOUT": "Write CELERY_BROKER_CONNECTION_TIMEOUT.",
    "CELERY_AMQP_CONNECTION_RETRY": "Write CELERY_BROKER_CONNECTION_RETRY.",
    "CELERY_AMQP_CONNECTION_MAX_RETRIES": "Write CELERY_BROKER_CONNECTION_MAX_RETRIES.",
    "SOUTH_MIGRATION_MODULES": "Remove it; migrations are Django's own, see docs/upgrading.rst.",
    "TT_HOST": "Remove it; the Tokyo Tyrant backend is gone.",
    "TT_PORT": "Remove it; the Tokyo Tyrant backend is gone.",
}

_NO_DATABASE_BROKER = (
    "The broker in the database is not part of this release. Use RabbitMQ or Redis; for development, filesystem://."
)

#: Values that Celery 2 and 3 knew and today's doesn't, and what to do instead. For a URL, its scheme counts.
GONE_VALUES: dict[tuple[str, ...], dict[str, str]] = {
    ("CELERY_RESULT_BACKEND", "CELERY_BACKEND"): {
        "amqp": "Write 'rpc://', or leave the setting out to store results in the database.",
        "tyrant": "Leave the setting out to store results in the database.",
    },
    (
        "BROKER_URL",
        "CELERY_BROKER_URL",
        "BROKER_TRANSPORT",
        "CELERY_BROKER_TRANSPORT",
        "BROKER_BACKEND",
        "CARROT_BACKEND",
    ): {
        "amqplib": "Write 'amqp'.",
        "pika": "Write 'amqp'.",
        "syncpika": "Write 'amqp'.",
        "beanstalk": "Use RabbitMQ or Redis.",
        "couchdb": "Use RabbitMQ or Redis.",
        "django": _NO_DATABASE_BROKER,
        "djcelery.transport": _NO_DATABASE_BROKER,
        "kombu.transport.django": _NO_DATABASE_BROKER,
        "djkombu.transport.databasetransport": _NO_DATABASE_BROKER,
        "ghettoq.taproot.database": _NO_DATABASE_BROKER,
    },
}

#: Values of CELERY_CACHE_BACKEND in Celery's old manual that name the backend, and mean the default cache.
CACHE_BACKEND_NAMES = frozenset({"django-cache", "djcelery-cache"})

#: Settings of the legacy default tables that belong to Django; Celery no longer reads them.
DJANGO_OWN = frozenset(
    {"ADMINS", "SERVER_EMAIL"}
    | {f"EMAIL_{name}" for name in ("HOST", "HOST_PASSWORD", "HOST_USER", "PORT", "TIMEOUT", "USE_TLS", "USE_SSL")}
)

#: Settings of the packages that came after django-celery, by package, and what to do instead.
PEERS_SETTINGS: dict[str, dict[str, str]] = {
    "django_celery_beat": {
        "DJANGO_CELERY_BEAT_TZ_AWARE": "Remove it; djcelery goes by USE_TZ.",
    },
    "django_celery_results": {
        "DJANGO_CELERY_RESULTS": "Remove it; who may do what in the admin is decided by permissions.",
        "DJANGO_CELERY_RESULTS_ID_FIRST_URLS": "Remove it; djcelery.urls has the paths of django-celery.",
        "DJANGO_CELERY_RESULTS_TASK_ID_MAX_LENGTH": "Remove it; task ids have 255 characters.",
    },
}
