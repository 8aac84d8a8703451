"""What to do with a trained run: classify, export, convert, look at."""
