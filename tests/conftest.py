"""Its place here puts this folder on the import path, for the helpers that several suites share."""

import os

from hypothesis import settings

# The tests already run side by side: threads of numpy and torch that wait for each other on the same cores
# take many times as long as one thread. Read when those are imported, and by the processes that tests start.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

# The same examples in every run, and no limit that a busy machine could break.
settings.register_profile("seeded", derandomize=True, deadline=None)
settings.load_profile("seeded")
