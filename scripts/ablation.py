"""Door to `clusterprompt.commands.ablation`."""

from clusterprompt.commands.ablation import main

if __name__ == "__main__":
    main()
