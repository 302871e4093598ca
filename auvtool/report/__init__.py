"""`auvtool report`: what scores say of a data set, as one page that needs nothing else."""
