"""Kombu's broker in a folder, with files that appear only when they are complete.

Kombu writes a message into its final file, so a reader can meet it empty: it then loses the message
and fails with a JSON error (about one message in two thousand when it reads often).
"""

import contextlib
import os
import time
import uuid
from pathlib import Path

from kombu.transport import filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    """Writes each file under a name that no reader looks for, then renames it."""

    def _put(self, queue, payload, **kwargs):
        folder = Path(self.data_folder_out)
        name = f"{time.monotonic_ns() // 1_000_000}_{uuid.uuid4()}.{queue}.msg"
        draft = folder / f".{name}"
        draft.write_text(dumps(payload), encoding="utf-8")
        draft.rename(folder / name)

    def _queue_bind(self, exchange, routing_key, pattern, queue):
        table = Path(self.control_folder) / f"{exchange}.exchange"
        if not table.exists():
            draft = table.with_name(f".{uuid.uuid4()}")
            draft.write_text("[]", encoding="utf-8")
            # Unlike a rename, a link leaves the table alone that another process made meanwhile.
            with contextlib.suppress(FileExistsError):
                os.link(draft, table)
            draft.unlink()
        super()._queue_bind(exchange, routing_key, pattern, queue)


class Transport(filesystem.Transport):
    """What ``filesystem://`` means in this project; ``demoproject.celery`` sees to that."""

    Channel = Channel
    # A folder is on no host; Kombu would warn that none was named.
    default_connection_params = {"port": 0}
