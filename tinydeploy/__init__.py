"""tinydeploy takes a trained neural network to a microcontroller."""

__version__ = "0.1.0"
