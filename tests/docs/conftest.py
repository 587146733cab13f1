"""Real processes, for what the manual says of them."""

from tests.integration.conftest import broker, migrated_database, programs

__all__ = ("broker", "migrated_database", "programs")
