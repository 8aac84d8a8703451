"""Door to `clusterprompt.commands.compare`."""

from clusterprompt.commands.compare import main

if __name__ == "__main__":
    main()
