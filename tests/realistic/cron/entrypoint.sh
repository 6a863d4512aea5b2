#!/bin/sh
set -e
echo "$CRON_TAB" > /var/spool/cron/crontabs/root
exec "$@"
