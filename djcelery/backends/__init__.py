"""Result backends on the Django ORM and on Django's caches."""
