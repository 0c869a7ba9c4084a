"""What would make a model fit: other settings, weights in RAM, fewer channels; each one computed and run."""

from tinydeploy.advice.change import Advice, Trial, Width
from tinydeploy.advice.search import advise

__all__ = ["Advice", "Trial", "Width", "advise"]
