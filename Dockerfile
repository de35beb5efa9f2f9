# Topolab's program and notebooks.
#
#     docker build -t topolab .
#     docker run --rm -v "$PWD/data:/data" topolab data convert mnist /data/mnist.lmdb --downloads /data
#     docker run --rm -p 8888:8888 --entrypoint topolab-notebooks topolab
#
# For CUDA, with a base that has the compiler and cuDNN:
#
#     docker build -t topolab-cuda --build-arg BASE=nvidia/cuda:13.0.0-cudnn-devel-ubuntu24.04 --build-arg FEATURES=cudnn .
ARG BASE=debian:bookworm

FROM ${BASE}
ARG FEATURES=""
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates curl python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --shell /bin/bash topolab \
    && mkdir /data /opt/topolab /opt/topolab-target \
    && chown topolab /data /opt/topolab /opt/topolab-target /usr/local/bin
USER topolab
WORKDIR /opt/topolab
ENV CARGO_HOME=/opt/topolab-target/cargo RUSTUP_HOME=/opt/topolab-target/rustup
ENV PATH=/opt/topolab-target/cargo/bin:$PATH CARGO_TARGET_DIR=/opt/topolab-target
RUN curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --component clippy,rustfmt
COPY --chown=topolab . .
# The program first: it changes less often than notebooks, and its layer stays.
RUN cargo install --locked --path lab/cli --bin topolab ${FEATURES:+--features ${FEATURES}} --root /usr/local \
    && rm -rf /opt/topolab-target/release
# Everything that cells link, and JupyterLab, with the quickstart executed once.
RUN cargo xtask lab --no-open ${FEATURES:+--features ${FEATURES}}
RUN printf '#!/bin/sh\ncd notebooks && exec .jupyter/bin/jupyter lab --ip 0.0.0.0 --no-browser "$@"\n' > /usr/local/bin/topolab-notebooks \
    && chmod +x /usr/local/bin/topolab-notebooks
VOLUME /data
EXPOSE 8888
ENTRYPOINT ["topolab"]
CMD ["--help"]
