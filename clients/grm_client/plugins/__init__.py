"""Files that trainers load by their path. They are apart from the package's other modules because ms-swift puts the
folder of such a file first on Python's path, where `trl.py` beside it would be found instead of TRL."""
