"""The yaml files of trainers and data sets, importable so that an installed copy finds them too."""
