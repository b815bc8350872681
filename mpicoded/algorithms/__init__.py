"""Arrays in, arrays out: the numerics of coded robust training. No MPI, no files, no clock.

Each module is one family. A family's base class says what its members do; the line ``Choice = A | B | …``
lists the members that a config may name.
"""
