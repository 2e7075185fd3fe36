# Stands in for the public redis image: Debian's redis-server as user 999 in /data.
ARG BASE
FROM ${BASE}
RUN groupmod --non-unique --gid 999 redis && usermod --non-unique --uid 999 --gid 999 redis \
    && install -d -o 999 -g 999 /data
WORKDIR /data
VOLUME /data
EXPOSE 6379
CMD ["redis-server"]
