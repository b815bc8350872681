"""Figures and tables of result files, in one look. Needs the extra ``plots``; nothing here is loaded by a run."""
