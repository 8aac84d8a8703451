"""Door: ``python -m clusterprompt.data`` is ``clusterprompt data``."""

import sys

from ..commands.data import main

if __name__ == "__main__":
    sys.exit(main())
