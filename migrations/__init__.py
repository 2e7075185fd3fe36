"""Schema history: one change a migration, each with a downgrade that works on a database with data."""
