"""Building images: targets, bake, which images are up to date, base images. Imports stack, machine and tasks' own modules."""
