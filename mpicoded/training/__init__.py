"""The round: what devices and server compute, and the loop that joins them."""
