#!/bin/sh
# The database and its owner. Runs once, when the volume is empty (docker-entrypoint-initdb.d).
# The service is no superuser: a hole in it can reach its own tables, not the server's files.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv password BURSAR_DATABASE_PASSWORD
CREATE ROLE bursar LOGIN PASSWORD :'password';
CREATE DATABASE bursar OWNER bursar;
REVOKE ALL ON DATABASE bursar FROM public;
SQL
