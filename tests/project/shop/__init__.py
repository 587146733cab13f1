"""A small shop: the tasks and classes that the databases in ``legacy/`` were made with."""
