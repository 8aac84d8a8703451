"""Door to `clusterprompt run`."""

import sys

from clusterprompt.commands.run import main

if __name__ == "__main__":
    sys.exit(main())
