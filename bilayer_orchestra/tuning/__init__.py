"""Chemical potentials that give the wished densities, found by running the model itself."""
