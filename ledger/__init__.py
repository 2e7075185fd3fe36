"""The books: what a command is, how it is decided, and the only code that writes money.

Knows PostgreSQL and nothing else: no HTTP, no Celery, no Redis, no settings.
"""
