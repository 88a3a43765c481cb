"""Keys, TUF repository, device CA, publishing."""
