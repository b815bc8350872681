"""Studies: questions that are answered by many runs. Each is one command, ``python -m postprocess.studies NAME``."""
