#!/bin/sh
# Starts the broker with the settings of every single-node stack (broker.properties) and those of the environment:
# KAFKA_ADVERTISED_LISTENERS becomes advertised.listeners. With TLS, the folder of ca.crt and broker.pem, also those of
# tls.properties. With WAIT_FOR_START, first waits for /start.sh to be put here
# and reads it: a test knows the advertised port only once the container runs. Its last line has to be `# end`.
set -eu

if [ -n "${WAIT_FOR_START:-}" ]; then
    until [ -r /start.sh ] && [ "$(tail -n 1 /start.sh)" = "# end" ]; do sleep 0.05; done
    . /start.sh
fi

home=$(dirname "$0")
data=${DATA:-/data/log}
config=${CONFIG:-/tmp/server.properties}
{
    cat "$home/broker.properties"
    echo "log.dirs=$data"
    if [ -n "${TLS:-}" ]; then
        cat "$home/tls.properties"
        echo "ssl.keystore.location=$TLS/broker.pem"
        echo "ssl.truststore.location=$TLS/ca.crt"
    fi
    env | while IFS='=' read -r name value; do
        case $name in
            KAFKA_*) echo "$(echo "${name#KAFKA_}" | tr 'A-Z_' 'a-z.')=$value" ;;
        esac
    done
} > "$config"

# The image brings the classes as Java has parsed them (archive-classes.sh).
kept=-XX:SharedArchiveFile=$home/classes.jsa
logging=-Dlog4j2.configurationFile=$home/log4j2.properties
if [ ! -e "$data/meta.properties" ]; then
    java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "$kept" "$logging" -cp "$home/libs/*" kafka.tools.StorageTool \
        format --cluster-id "${CLUSTER_ID:-bGV0aGUtc2luZ2xlLW5vZA}" --config "$config"
fi
exec java ${JAVA_OPTS:--Xms512m -Xmx1g -XX:+UseG1GC -XX:MaxGCPauseMillis=50} -XX:+ExitOnOutOfMemoryError \
    "${JAVA_ARCHIVE:-$kept}" "$logging" -cp "$home/libs/*" kafka.Kafka "$config"
