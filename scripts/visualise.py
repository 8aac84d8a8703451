"""Door to `clusterprompt.commands.pictures`."""

from clusterprompt.commands.pictures import main

if __name__ == "__main__":
    main()
