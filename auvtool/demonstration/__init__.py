"""`auvtool demo`: the whole chain on phantoms whose dirty cases are known."""
