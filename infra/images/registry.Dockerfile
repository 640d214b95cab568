# The schema registry with a store in /data. The context is laid out by infra/images/build.py.
ARG BASE=eclipse-temurin:17-jre
FROM ${BASE}
COPY registry /opt/registry
COPY registry.properties registry-entrypoint.sh archive-classes.sh /opt/registry/
RUN sh /opt/registry/archive-classes.sh /opt/registry/registry-entrypoint.sh 8080
COPY --chown=1000:1000 empty /data
USER 1000:1000
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/bin/sh", "/opt/registry/registry-entrypoint.sh"]
