"""``python -m clusterprompt.export``."""

from .use.export import main

if __name__ == "__main__":
    raise SystemExit(main())
