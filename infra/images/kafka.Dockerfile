# One broker. The context is laid out by infra/images/build.py. Any image with a Java 17 runtime and a shell is a base.
ARG BASE=eclipse-temurin:17-jre
FROM ${BASE}
COPY kafka/libs /opt/kafka/libs
COPY broker.properties tls.properties log4j2.properties kafka-entrypoint.sh /opt/kafka/
COPY --chown=1000:1000 empty /data
USER 1000:1000
VOLUME /data
EXPOSE 9092
ENTRYPOINT ["/bin/sh", "/opt/kafka/kafka-entrypoint.sh"]
