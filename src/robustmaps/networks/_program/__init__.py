"""What a network computes as a list of PyTorch's operations in a file, opened without the code that made it."""
