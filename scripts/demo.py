"""Door to `clusterprompt.commands.demo`."""

from clusterprompt.commands.demo import main

if __name__ == "__main__":
    main()
