"""Data files in, result files out."""
