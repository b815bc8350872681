"""Loops that NumPy needs several passes for, compiled by LLVM (the extra ``fast``); the same bits as without.

Only imported where there is work that is worth it: a loop for 100 votes takes a tenth of a second to compile, one for
1000 some seconds, once in a process.
Outside ``algorithms``, whose shape checks in tests cannot look into compiled code.
"""
