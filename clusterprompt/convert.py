"""Door: ``python -m clusterprompt.convert`` is ``clusterprompt convert``."""

import sys

from .commands.convert import main

if __name__ == "__main__":
    sys.exit(main())
