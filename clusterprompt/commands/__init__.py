"""One module a command: its parser and its main."""
