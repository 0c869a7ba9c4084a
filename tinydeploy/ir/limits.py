"""The stated limits of what is accepted from outside; a model beyond them is refused by name.

They are far above anything that fits a microcontroller and exist so that a hostile file cannot make
the tool allocate or compute without end.
"""

MAX_FILE_BYTES = 1 << 28
MAX_RANK = 6
MAX_ELEMENTS = 1 << 26
MAX_TOTAL_ELEMENTS = 1 << 28
MAX_NODES = 10_000
MAX_MACS = 10_000_000_000
