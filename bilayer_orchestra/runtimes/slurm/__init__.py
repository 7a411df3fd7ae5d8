"""Studies on a Slurm cluster: array jobs, and a state that is readable from the disk alone."""
