"""Steps from each schema to the next; run by `store.database.migrate` only."""
