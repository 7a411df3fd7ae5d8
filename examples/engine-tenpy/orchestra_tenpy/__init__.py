"""DMRG with TeNPy as an engine of bilayer_orchestra."""
