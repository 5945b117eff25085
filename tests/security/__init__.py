"""What strangers, tenants and hostile stores may try, against the real service."""
