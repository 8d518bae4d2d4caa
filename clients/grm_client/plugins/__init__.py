"""Files that trainers load by path. They have a folder of their own and unique names, because ms-swift puts a plugin's
folder first on Python's path: a `trl.py` in it would shadow TRL."""
