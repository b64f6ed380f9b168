"""What may be written where, and what is left of it when the process dies."""
