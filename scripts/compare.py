"""Door to `clusterprompt compare`."""

import sys

from clusterprompt.commands.compare import main

if __name__ == "__main__":
    sys.exit(main())
