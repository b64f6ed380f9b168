"""A Ray cluster: the connection to one, and the errors of its machines."""
