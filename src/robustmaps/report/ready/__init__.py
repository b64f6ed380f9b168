"""Tables and figures of ready studies."""
