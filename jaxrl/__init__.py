"""jaxrl: reinforcement learning as JAX values."""

__version__ = "0.1.0"
