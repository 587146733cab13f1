"""Faults made on purpose: workers killed while they store, databases restarted under load. ``make faults``."""
