"""What ``run_demo.py`` consists of: processes, load and checks. Not an example of how to use djcelery."""
