"""Layer 5: tables and plots."""

from robustmaps.report._plots import AttackedImage, plot_attacked, plot_curves, plot_samples
from robustmaps.report._tables import Table, table

__all__ = ["AttackedImage", "Table", "plot_attacked", "plot_curves", "plot_samples", "table"]
