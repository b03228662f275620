"""Reports: what a study or an experiment came to, as one HTML page that needs nothing else."""
