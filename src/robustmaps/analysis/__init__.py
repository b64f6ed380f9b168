"""Layer 3: what a network costs."""

from robustmaps.analysis._catalog import CatalogEntry, catalog
from robustmaps.models import Cost, measure_cost

__all__ = ["CatalogEntry", "Cost", "catalog", "measure_cost"]
