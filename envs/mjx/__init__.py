"""Our own tasks on MJX, MuJoCo's physics in JAX; their models are in the package, nothing is downloaded."""
