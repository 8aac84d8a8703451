"""Door to `clusterprompt base2new`."""

import sys

from clusterprompt.commands.base2new import main

if __name__ == "__main__":
    sys.exit(main())
