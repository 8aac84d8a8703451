"""Door: ``python -m clusterprompt.export`` is ``clusterprompt export``."""

import sys

from .commands.export import main

if __name__ == "__main__":
    sys.exit(main())
