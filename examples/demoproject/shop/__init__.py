"""A shop with very few goods: the app whose tasks the demo runs."""
