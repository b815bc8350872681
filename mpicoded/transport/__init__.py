"""How devices and server reach each other. Only ``transport.mpi`` imports mpi4py."""
