"""The project under stress: settings from FAULT_SETTINGS (JSON), bad tasks, lost messages back in seconds."""

import json

from legacyproj.settings import *  # noqa: F403
from legacyproj.settings import BROKER_TRANSPORT_OPTIONS

from djcelery import eventloop

CELERY_IMPORTS = ["shop.faulty"]
if "global_keyprefix" in BROKER_TRANSPORT_OPTIONS:
    # Redis: when a message that a killed worker had is seen again, and how often workers look for such ones.
    BROKER_TRANSPORT_OPTIONS |= {
        "visibility_timeout": 5,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        "unacked_mutex_expire": 2,
    }
if "STORE_WAITS_S" in os.environ:  # noqa: F405
    # A test can't wait a minute for a worker to give up.
    eventloop.STORE_WAITS_S = tuple(json.loads(os.environ["STORE_WAITS_S"]))  # noqa: F405
globals().update(json.loads(os.environ.get("FAULT_SETTINGS", "{}")))  # noqa: F405
