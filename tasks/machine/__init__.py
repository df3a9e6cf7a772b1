"""May images be built here: the container engine, and making the machine ready. Imports shell and project."""
