"""The data plane: runs one task, copies one object."""
