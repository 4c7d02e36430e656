#!/bin/sh
# Writes .env beside itself with fresh secrets: sh docker/make_env.sh REPOSITORY (anything git can clone).
set -eu
repository=${1:?give the address of the repository whose pins count}
cd "$(dirname "$0")"
if [ -e .env ]; then
    echo "make_env: docker/.env is there already, and the volumes know its passwords: remove both or neither" >&2
    exit 1
fi
umask 077
{
    echo "UNDERSTUDY_REPOSITORY=$repository"
    for name in POSTGRES_PASSWORD MLFLOW_DB_PASSWORD PREFECT_DB_PASSWORD S3_ACCESS_KEY S3_SECRET_KEY \
        UNDERSTUDY_WEBHOOK_SECRET; do
        echo "$name=$(openssl rand -hex 24)"
    done
    echo "PREFECT_AUTH=team:$(openssl rand -hex 24)"
    echo "MLFLOW_WEBHOOK_KEY=$(openssl rand -base64 32 | tr +/ -_)"
} >.env.new
mv .env.new .env
