"""One method a file; ``base.py`` holds everything that is Dassl-shaped."""
