"""What tests of a project use: the test runner, the capturing of tasks, pytest fixtures.

Nothing here is imported by the rest of the package. Next: ``docs/testing.rst``.
"""
