"""Releases: images to a registry, and from there to many machines. Optional: delete with its line in noxfile.py, as docs/releasing.md says."""

from . import rollout as rollout  # which imports push
