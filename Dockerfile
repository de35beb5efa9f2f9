# Topolab's program, and its notebooks.
#
#     docker build -t topolab .
#     docker run --rm -v topolab-data:/data topolab data convert mnist /data/mnist.lmdb --downloads /data
#
#     docker build -t topolab-notebooks --target notebooks .
#     docker run --rm -p 127.0.0.1:8888:8888 topolab-notebooks
#
# For CUDA, with a base that has the compiler and cuDNN:
#
#     docker build -t topolab-cuda --build-arg BASE=nvidia/cuda:13.0.0-cudnn-devel-ubuntu24.04 --build-arg FEATURES=cudnn .
ARG BASE=debian:bookworm

FROM ${BASE} AS build
ARG FEATURES=""
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential ca-certificates curl python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --shell /bin/bash topolab \
    && mkdir /opt/topolab /opt/topolab-target \
    && chown topolab /opt/topolab /opt/topolab-target
USER topolab
WORKDIR /opt/topolab
ENV CARGO_HOME=/opt/topolab-target/cargo RUSTUP_HOME=/opt/topolab-target/rustup
ENV PATH=/opt/topolab-target/cargo/bin:$PATH CARGO_TARGET_DIR=/opt/topolab-target
RUN curl --proto =https --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --component clippy,rustfmt
COPY --chown=topolab . .
# Into CARGO_HOME, where this user may write.
RUN cargo install --locked --path lab/cli --bin topolab ${FEATURES:+--features ${FEATURES}} \
    && rm -rf /opt/topolab-target/release

# Cells are compiled when they run, so this image keeps the compiler, the sources and what they were built into.
FROM build AS notebooks
ARG FEATURES=""
# Everything that cells link, and JupyterLab, with the quickstart executed once.
RUN cargo xtask lab --no-open ${FEATURES:+--features ${FEATURES}}
WORKDIR /opt/topolab/notebooks
# As `cargo xtask lab` sets it: the kernel of this environment comes first.
ENV JUPYTER_PREFER_ENV_PATH=1
EXPOSE 8888
ENTRYPOINT ["/opt/topolab/notebooks/.jupyter/bin/jupyter", "lab", "--ip", "0.0.0.0", "--no-browser"]

# The program needs the C library alone, and with CUDA its libraries, which the base has.
FROM ${BASE} AS program
RUN useradd --create-home --shell /bin/bash topolab \
    && mkdir /data \
    && chown topolab /data
COPY --from=build /opt/topolab-target/cargo/bin/topolab /usr/local/bin/topolab
USER topolab
WORKDIR /data
VOLUME /data
ENTRYPOINT ["topolab"]
CMD ["--help"]
