"""Services made, copied, adopted and removed; a clone renamed and updated. Imports project, env, changes, venv and testing."""
