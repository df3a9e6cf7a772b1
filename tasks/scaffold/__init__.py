"""Services made, adopted and removed; a clone renamed. Imports project, services and changes."""
