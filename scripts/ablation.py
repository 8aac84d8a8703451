"""Door to `clusterprompt ablation`."""

import sys

from clusterprompt.commands.ablation import main

if __name__ == "__main__":
    sys.exit(main())
