"""Persistence: schema, migrations and one store, grouped by transaction."""
