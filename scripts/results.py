"""Door to `clusterprompt results`."""

import sys

from clusterprompt.commands.results import main

if __name__ == "__main__":
    sys.exit(main())
