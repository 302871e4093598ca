"""Training with nnU-Net on a keep list, with or without the DUO loss; only `auvtool train` imports this package."""
