"""Door to `clusterprompt train`, with CoOp's command line."""

import sys

from clusterprompt.commands.train import main

if __name__ == "__main__":
    sys.exit(main())
