# The schema registry with a store in /data. The context is laid out by infra/images/build.py.
ARG BASE=eclipse-temurin:17-jre
FROM ${BASE}
COPY registry /opt/registry
COPY registry.properties registry-entrypoint.sh /opt/registry/
COPY --chown=1000:1000 empty /data
USER 1000:1000
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["/bin/sh", "/opt/registry/registry-entrypoint.sh"]
