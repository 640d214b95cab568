#!/bin/sh
# Starts the registry on port 8080, with its store in $DATA. The image brings the classes as Java has parsed them
# (archive-classes.sh).
set -eu
archive=${JAVA_ARCHIVE:--XX:SharedArchiveFile=/opt/registry/classes.jsa}
exec java ${JAVA_OPTS:--Xms64m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1} -XX:+ExitOnOutOfMemoryError \
    "$archive" \
    -Dquarkus.config.locations=/opt/registry/registry.properties -Dquarkus.http.host=0.0.0.0 -Dquarkus.http.port=8080 \
    "-Dapicurio.datasource.url=jdbc:h2:file:${DATA:-/data}/registry;WRITE_DELAY=0" -jar /opt/registry/apicurio-registry-app-*-runner.jar
