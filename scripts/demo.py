"""Door to `clusterprompt demo`."""

import sys

from clusterprompt.commands.demo import main

if __name__ == "__main__":
    sys.exit(main())
