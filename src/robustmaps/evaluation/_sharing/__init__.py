"""Who attacks the batches of an evaluation: this process, the ranks of a run, or workers elsewhere."""
