"""Running tests: services' in their containers, the tooling's and the stack's on the host. Imports stack, images, machine."""
