"""The verbs, a file each: options, and what is printed."""
