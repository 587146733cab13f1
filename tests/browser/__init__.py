#: Of everybody on the site of the browser tests.
PASSWORD = "open sesame"
