"""A self-contained demonstration: real stores, the real service, a real copy."""
