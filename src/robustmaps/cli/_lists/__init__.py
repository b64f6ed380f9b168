"""The verbs that list or show what there is, a file each."""
