"""The parts of the attack view; see `robustmaps.engine.view`."""
