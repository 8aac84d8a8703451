"""Door to `clusterprompt.running.train`, with CoOp's command line."""

from clusterprompt.running.train import main

if __name__ == "__main__":
    main()
