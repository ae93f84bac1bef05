"""What runs where: the mesh of devices, and faults of the compiler under JAX."""
