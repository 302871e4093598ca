"""`auvtool bench`: experiments on data sets whose dirty cases are known."""
