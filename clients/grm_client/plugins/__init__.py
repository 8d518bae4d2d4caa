"""Files that trainers load by their path. They are apart from the package's other modules, under names that nothing
else has, because ms-swift puts the folder of such a file first on Python's path: `trl.py` beside it would be found in
TRL's place."""
