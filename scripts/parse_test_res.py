"""Door to `clusterprompt.commands.logs`."""

from clusterprompt.commands.logs import main

if __name__ == "__main__":
    main()
