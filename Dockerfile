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
RUN useradd --create-home --shell /bin/bash topolab && mkdir /data && chown topolab /data
USER topolab
WORKDIR /home/topolab/topolab
ENV PATH=/home/topolab/.cargo/bin:$PATH CARGO_TARGET_DIR=/home/topolab/target
RUN curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --component clippy,rustfmt
COPY --chown=topolab . .
# The program first: it changes less often than notebooks, and its layer stays.
RUN cargo install --locked --path lab/cli ${FEATURES:+--features ${FEATURES}} --root /home/topolab/.cargo \
    && rm -rf /home/topolab/target/release
# Everything that cells link, and JupyterLab, with the quickstart executed once.
RUN cargo xtask lab --no-open ${FEATURES:+--features ${FEATURES}}
RUN printf '#!/bin/sh\ncd notebooks && exec .jupyter/bin/jupyter lab --ip 0.0.0.0 --no-browser "$@"\n' > /home/topolab/.cargo/bin/topolab-notebooks \
    && chmod +x /home/topolab/.cargo/bin/topolab-notebooks
VOLUME /data
EXPOSE 8888
ENTRYPOINT ["topolab"]
CMD ["--help"]
