"""Errors, numbers, files, devices, random numbers and the attack view.

The modules are imported by name (``from robustmaps.engine.view import view``), so that the command line can use
the ones that need no PyTorch without paying for its import.
"""
