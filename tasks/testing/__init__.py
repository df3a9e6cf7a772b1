"""Running the tests of services in their containers. Imports stack and ownership."""
