"""The command line: one file a command (options in, one step called, result printed); app.py joins them."""
