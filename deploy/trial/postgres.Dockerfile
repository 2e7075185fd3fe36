# Stands in for the public postgres image: Debian's PostgreSQL behind the same contract (user 999, initdb once from
# POSTGRES_* and docker-entrypoint-initdb.d, SIGINT to stop).
ARG BASE
FROM ${BASE}
RUN groupmod --non-unique --gid 999 postgres && usermod --non-unique --uid 999 --gid 999 postgres \
    && rm -rf /var/lib/postgresql && install -d -o 999 -g 999 -m 1777 /var/lib/postgresql \
    && install -d -o 999 -g 999 -m 3777 /run/postgresql \
    && mkdir /docker-entrypoint-initdb.d \
    && ln -s /usr/lib/postgresql/*/bin/* /usr/local/bin/
ENV PGDATA=/var/lib/postgresql/debian/docker LANG=C.UTF-8
COPY postgres-entrypoint.sh /usr/local/bin/
VOLUME /var/lib/postgresql
STOPSIGNAL SIGINT
USER 999:999
EXPOSE 5432
ENTRYPOINT ["postgres-entrypoint.sh"]
CMD ["postgres"]
