"""Door to `clusterprompt.running.base2new`."""

from clusterprompt.running.base2new import main

if __name__ == "__main__":
    main()
