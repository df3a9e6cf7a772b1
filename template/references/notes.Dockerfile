# The recipe of the notes that Slipway grew from, for `nox -s sizes` to measure itself against. Corrected just enough to
# build: an interpreter that still lives, `=` for `==` (dash has no other), `--only echo` for `--no-dev`, a virtual
# environment because Debian's Python wants one, and Poetry pointed at whatever index pip uses.
ARG STACK_BASE=python:3.13-slim
FROM ${STACK_BASE}
ARG BUILD_ENV=production
ENV PATH=/env/bin:$PATH
WORKDIR /dev_env/
COPY docker/build/tools.txt poetry.lock pyproject.toml /dev_env/
RUN --mount=type=secret,id=ca,target=/etc/ssl/certs/ca-certificates.crt \
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt && \
    python3 -m venv /env && \
    pip install -r tools.txt && \
    export POETRY_PYPI_MIRROR_URL=$(python -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url)') && \
    poetry config virtualenvs.create false && \
    poetry install $(test "$BUILD_ENV" = "production" && echo "--only echo") --no-directory --no-interaction --no-ansi
