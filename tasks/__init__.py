"""What stands behind noxfile.py: one module per thing the yard knows about. Needs nothing beyond nox and Python."""
