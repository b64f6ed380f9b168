"""The interactive plots of the page."""
