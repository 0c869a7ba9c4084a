"""Its place here puts this folder on the import path, for the helpers that several suites share."""
