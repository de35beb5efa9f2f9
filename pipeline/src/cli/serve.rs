//! The command `serve`: what was typed becomes a server, and signals its end.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::filter::LevelFilter;

use super::EXIT_CODES;
use crate::Store;
use crate::flight::{Listen, Options, Server, Tls};

/// Serve stores to other processes and machines, over Arrow Flight
///
/// Each store is served under its file's name without the ending: tiny.lmdb is "tiny". Clients name a data set, a split, transforms, a
/// seed and an epoch, and get batches of pictures, labels and indices, made on this machine's cores as fast as they take them; one that
/// is slow or gone costs the others nothing. In Rust, pipeline::flight::Client is a loader like any other; in Python, pyarrow.flight is
/// enough (examples/client.py).
///
/// Clients of the same user on this machine (Linux) read the pictures in the server's own memory; nothing is copied (in Python:
/// examples/shared_client.py). For others they go through the socket.
///
/// The server prints its address, the one that clients use, as the first line of standard output, and logs to standard error. SIGTERM or
/// SIGINT let nobody else in and end the server once all streams have ended, or after the time of --drain; clients that were cut off ask
/// for the rest when it is back.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"))]
pub struct Serve {
    /// The stores; NAME=FILE serves FILE under another name
    #[arg(required = true)]
    stores: Vec<String>,
    /// Where: an address and a port (0 is any that is free), or unix:/a/path, a socket whose permissions say who may connect
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: Listen,
    /// A file with the token that clients have to show; needed unless only this machine can connect. `openssl rand -hex 32` makes one
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Encrypt: the file with the server's certificate, in PEM, and those of who vouches for it
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// The file with the certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Show metrics to Prometheus here, at /metrics, to whoever asks
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Threads that make batches; all cores by default
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Most streams open at a time; each holds up to two batches in memory, or, shared with its client, four and more where they are few
    #[arg(long, value_name = "N", default_value = "64")]
    streams: NonZeroUsize,
    /// How long streams may go on after SIGTERM, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "30")]
    drain: u64,
    /// How the log is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log: Format,
}

const EXAMPLES: &str = "\
Examples:
  On this machine, for its users:
      topolab data serve tiny.lmdb --listen 127.0.0.1:4100
  For whoever may open a socket:
      topolab data serve tiny.lmdb --listen unix:/run/pipeline/flight.sock
  For other machines:
      openssl rand -hex 32 > token
      topolab data serve tiny.lmdb imagenet.lmdb --listen 0.0.0.0:4100 \\
          --token-file token --tls-certificate server.pem --tls-key server.key --metrics 127.0.0.1:9100
  As a service: examples/pipeline.service

What clients ask for is JSON; all but the data set may be left out, and each field's documentation is that of pipeline::loader::Config:
  {\"dataset\": \"tiny\", \"epoch\": 3, \"start\": 17, \"loader\": {\"split\": \"train\", \"batch\": 128, \"seed\": 0, \"order\": \"balanced\",
   \"transforms\": [{\"rotate\": {\"degrees\": [-10, 10]}}, {\"pad_crop\": {\"size\": 64, \"pad\": 8}}, {\"flip\": {\"p\": 0.5}}],
   \"mix_up\": 0.2, \"normalize\": \"imagenet\", \"output\": \"f32\"}}";

/// How the log is written.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Lines for people.
    Text,
    /// An object a line, for programs.
    Json,
}

impl Serve {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_max_level(LevelFilter::INFO);
        match self.log {
            Format::Text => log.init(),
            Format::Json => log.json().init(),
        }
        let mut stores = BTreeMap::new();
        for argument in &self.stores {
            let (name, file) = named(argument)?;
            if stores.insert(name.clone(), Store::open(file)?).is_some() {
                bail!("two data sets are called {name:?}; give one another name with NAME=FILE");
            }
        }
        let options = self.options()?;
        if options.token.is_some() && options.tls.is_none() && matches!(&options.listen, Listen::Tcp(at) if !at.ip().is_loopback()) {
            tracing::warn!("without --tls-certificate, the token and the pictures cross the network in the clear");
        }

        // Installed before the address is printed: who has read it may send one.
        let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen to signals")?;
        let (asked, ended) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            if let Some(signal) = signals.forever().next() {
                tracing::info!(signal, "ending");
                let _ = asked.send(());
            }
        });
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
        runtime.block_on(async {
            let server = Server::bind(stores, options).await?;
            super::print(&format!("{}\n", server.url()))?;
            tracing::info!(url = server.url(), metrics = server.metrics().map(tracing::field::display), "serving");
            let end = async {
                // A sender that is gone is an end as well.
                let _ = ended.await;
            };
            anyhow::Ok(server.run(end).await?)
        })?;
        // Batches in the making are nobody's now.
        runtime.shutdown_background();
        tracing::info!("ended");
        Ok(ExitCode::SUCCESS)
    }

    fn options(self) -> anyhow::Result<Options> {
        let read = |file: &Path| fs::read(file).with_context(|| format!("cannot read {}", file.display()));
        let tls = match (&self.tls_certificate, &self.tls_key) {
            (Some(certificate), Some(key)) => Some(Tls { certificate: read(certificate)?, key: read(key)? }),
            _ => None,
        };
        let token = self.token_file.as_deref().map(read).transpose()?.map(String::from_utf8).transpose();
        let token = token.context("the token is not text")?.map(|token| token.trim().to_owned());
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Ok(Options {
            listen: self.listen,
            metrics: self.metrics,
            token,
            tls,
            threads: self.threads.unwrap_or_else(cores),
            streams: self.streams,
            drain: Duration::from_secs(self.drain),
        })
    }
}

/// `NAME=FILE`, or a file that has its name from itself.
fn named(argument: &str) -> anyhow::Result<(String, PathBuf)> {
    if let Some((name, file)) = argument.split_once('=')
        && !name.contains('/')
    {
        return Ok((name.to_owned(), file.into()));
    }
    let file = PathBuf::from(argument);
    let name =
        file.file_stem().and_then(|stem| stem.to_str()).with_context(|| format!("{argument}: has no name; give one with NAME=FILE"))?;
    Ok((name.to_owned(), file))
}
