"""Layer 5: tables and plots."""

from robustmaps.report._analysis_plots import AttackedMaps, plot_gains, plot_maps, plot_plan
from robustmaps.report._plots import AttackedImage, plot_attacked, plot_curves, plot_eps_curve, plot_samples
from robustmaps.report._tables import Table, table
from robustmaps.report._theory_plots import plot_theory

__all__ = [
    "AttackedImage",
    "AttackedMaps",
    "Table",
    "plot_attacked",
    "plot_curves",
    "plot_eps_curve",
    "plot_gains",
    "plot_maps",
    "plot_plan",
    "plot_samples",
    "plot_theory",
    "table",
]
