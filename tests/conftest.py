"""Its place here puts this folder on the import path, for the helpers that several suites share."""

from hypothesis import settings

# The same examples in every run, and no limit that a busy machine could break.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")
