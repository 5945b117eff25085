"""Pure decisions: which slice, which object, how big a part."""
