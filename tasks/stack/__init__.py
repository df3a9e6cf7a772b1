"""The Compose project: model, up and down, ports, the debugger. Imports machine, ownership and project."""
