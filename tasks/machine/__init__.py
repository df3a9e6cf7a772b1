"""Can images be built here: the container engine, and what `setup` does to the machine. Imports only tasks' own modules."""
