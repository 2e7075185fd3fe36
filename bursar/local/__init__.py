"""The whole service on one machine: a PostgreSQL and a Valkey of its own, and what supervises them."""
