"""Door to `clusterprompt pictures`."""

import sys

from clusterprompt.commands.pictures import main

if __name__ == "__main__":
    sys.exit(main())
