"""The places that images come from, one file each."""
