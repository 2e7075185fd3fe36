"""The dashboard: pages for people, at `/`. They ask the api's own routes, in process, as whoever is signed in."""
