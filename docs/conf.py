"""Sphinx builds the manual with this: ``make docs``. Needs nothing from the network."""

from djcelery import __version__

project = "djcelery"
author = copyright = "The djcelery developers"
version = release = __version__

root_doc = "index"
exclude_patterns = ["_build"]
# A reference that leads nowhere is a warning, and with -W an error.
nitpicky = True
# "--dry-run" is to stay as it is typed.
smartquotes = False

html_theme = "alabaster"
html_static_path = ["_static"]
html_theme_options = {
    "description": "Celery inside Django, in one app",
    "fixed_sidebar": True,
    "page_width": "1240px",
    "body_max_width": "1000px",
    "show_powered_by": False,
}
html_sidebars = {"**": ["about.html", "searchfield.html", "navigation.html"]}
html_show_copyright = False
# The pages' sources are in the repository.
html_show_sourcelink = html_copy_source = False
