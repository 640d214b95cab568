#!/bin/sh
# archive-classes.sh ENTRYPOINT PORT: starts the program once, while its image is made, and ends it when it listens. It
# leaves the classes that it has parsed in classes.jsa beside the entrypoint: every start of the image takes half the
# processor time. An archive holds classes, never data. Without one the image works, too.
set -eu
entrypoint=$1 port=$(printf ':%04X ' "$2")
archive=$(dirname "$entrypoint")/classes.jsa
export JAVA_ARCHIVE="-XX:ArchiveClassesAtExit=$archive" DATA=/tmp/data CONFIG=/tmp/config
sh "$entrypoint" > /tmp/log 2>&1 &
until grep -q "$port.* 0A " /proc/net/tcp /proc/net/tcp6; do
    kill -0 $! || { cat /tmp/log; exit 1; }
    sleep 0.2
done
kill $!
wait $! || true # 143: it was told to end
rm -rf "$DATA" "$CONFIG" /tmp/log /tmp/hsperfdata_* /tmp/vertx-cache
[ -s "$archive" ] || { echo "no archive of classes was written" >&2; exit 1; }
chmod 644 "$archive"
