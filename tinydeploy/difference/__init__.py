"""`diff`: where two forms of one network part ways, layer by layer."""

from tinydeploy.difference.compare import Difference, LayerDifference, Side, diff
from tinydeploy.difference.match import Pair, match_units
from tinydeploy.difference.units import Unit, units_of

__all__ = ["Difference", "LayerDifference", "Pair", "Side", "Unit", "diff", "match_units", "units_of"]
