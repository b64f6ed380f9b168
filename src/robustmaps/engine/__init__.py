"""What every other package builds on: errors, numbers, files, devices, random numbers and the attack view.

Import its modules by name, so that the command line can use those without PyTorch and not pay for its import.
"""
