# One broker. The context is laid out by infra/images/build.py. Any image with a Java 17 runtime and a shell is a base.
ARG BASE=eclipse-temurin:17-jre
FROM ${BASE}
COPY kafka/libs /opt/kafka/libs
COPY broker.properties tls.properties log4j2.properties kafka-entrypoint.sh archive-classes.sh /opt/kafka/
RUN KAFKA_LISTENERS=PLAINTEXT://localhost:9092,CONTROLLER://localhost:29093 \
    KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT \
    KAFKA_CONTROLLER_QUORUM_VOTERS=1@localhost:29093 \
    sh /opt/kafka/archive-classes.sh /opt/kafka/kafka-entrypoint.sh 9092
COPY --chown=1000:1000 empty /data
USER 1000:1000
VOLUME /data
EXPOSE 9092
ENTRYPOINT ["/bin/sh", "/opt/kafka/kafka-entrypoint.sh"]
