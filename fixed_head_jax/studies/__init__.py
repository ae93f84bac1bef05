"""Several runs: stages, sweeps and searches, and tables of what they gave."""
