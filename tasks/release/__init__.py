"""Publishing images to a registry. Optional: delete with its line in noxfile.py, as docs/releasing.md says."""

from . import push as push
