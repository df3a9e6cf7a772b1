"""Building images: base images, bake, and which images are up to date. Imports machine and stack."""
