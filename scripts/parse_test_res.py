"""Door to `clusterprompt logs`."""

import sys

from clusterprompt.commands.logs import main

if __name__ == "__main__":
    sys.exit(main())
