#!/bin/sh
# Before the worker starts: its checkout is the repository's newest, the deployments are on the Prefect server, and
# MLflow calls the receiver at $1. Runs in the checkout's folder; reads UNDERSTUDY_REPOSITORY (anything git can clone),
# UNDERSTUDY_WEBHOOK_SECRET, PREFECT_API_URL and MLFLOW_TRACKING_URI.
set -eu
if [ -e .git ]; then
    git pull --quiet --ff-only
else
    git clone --quiet "$UNDERSTUDY_REPOSITORY" .
fi
prefect --no-prompt work-pool create understudy --type process --overwrite
prefect --no-prompt deploy --all
understudy subscribe "$1"
