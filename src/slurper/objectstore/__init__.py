"""Object stores behind one protocol of pages and parts."""
