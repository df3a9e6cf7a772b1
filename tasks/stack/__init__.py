"""The running stack: Compose's model, up, wait, logs, down, ports, debugging. Imports machine and tasks' own modules."""
