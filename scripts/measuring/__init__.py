"""What the developers' measurements share: trainers built without data, their steps and tests, clocks."""
