"""Fits of correlation functions: decay exponents and lengths, with honest errors.

:func:`.datasets.fit` is the entry; the forms are in :mod:`.forms`.
"""
