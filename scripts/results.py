"""Door to `clusterprompt.commands.results`."""

from clusterprompt.commands.results import main

if __name__ == "__main__":
    main()
