"""Tables of several evaluations: a column per attack, and a matrix of networks."""
