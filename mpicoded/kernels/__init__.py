"""Loops that NumPy needs several passes for, compiled by numba (the extra ``fast``); the same bits as without.

Only imported where there is work that is worth it: numba takes half a second to load, on every rank. Outside
``algorithms``, whose shape checks in tests cannot look into compiled code.
"""
