"""Releases: images to a registry, and from there to many machines. Optional: delete with its line in noxfile.py, as docs/releasing.md says."""

from .push import publish as publish
from .rollout import deploy as deploy
