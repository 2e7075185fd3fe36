"""What makes the site out of docs/: `mkdocs build` calls `hooks`; the rest can be read and tested without it."""
