"""``python -m clusterprompt.convert``."""

from .use.convert import main

if __name__ == "__main__":
    raise SystemExit(main())
