# A machine of the cluster that `nox -s bench -- cluster` makes: Docker's engine, and what it needs beside it.
ARG STACK_BASE=python:3.13-slim
FROM ${STACK_BASE}
RUN apt-get update && \
    apt-get install --yes --no-install-recommends docker.io docker-cli docker-registry haproxy iptables wrk && \
    rm -rf /var/lib/apt/lists/*
