"""Use a trained run: classify, export, convert, draw."""
