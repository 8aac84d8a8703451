"""Door: ``python -m clusterprompt.predict`` is ``clusterprompt predict``."""

import sys

from .commands.predict import main

if __name__ == "__main__":
    sys.exit(main())
