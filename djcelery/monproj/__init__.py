"""The Django project of the stand-alone monitor, see ``djcelery.mon``."""
