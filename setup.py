"""Entry point for tools that still call setup.py; every fact is in pyproject.toml."""

from setuptools import setup

setup()
