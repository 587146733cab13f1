"""The Django app ``shop``."""

from django.apps import AppConfig


class ShopConfig(AppConfig):
    """A shop with very few goods."""

    name = "shop"
