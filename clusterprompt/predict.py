"""``python -m clusterprompt.predict``."""

from .commands.predict import main

if __name__ == "__main__":
    raise SystemExit(main())
