//! What a server has done so far, as [Prometheus](https://prometheus.io/docs/instrumenting/exposition_formats/) reads it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datasets::Batch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::columns;

/// What went out of one data set.
#[derive(Debug, Default)]
pub(super) struct Served {
    streams: AtomicU64,
    batches: AtomicU64,
    images: AtomicU64,
    bytes: AtomicU64,
}

impl Served {
    pub(super) fn stream(&self) {
        self.streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn batch(&self, batch: &Batch) {
        self.batches.fetch_add(1, Ordering::Relaxed);
        self.images.fetch_add(batch.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(columns::bytes(&batch.values).len() as u64, Ordering::Relaxed);
    }
}

/// The counters of a server.
#[derive(Debug)]
pub(super) struct Metrics {
    by_dataset: BTreeMap<String, Arc<Served>>,
    /// Requests by method, as far as it is known, and by what became of them.
    requests: [[AtomicU64; OUTCOMES.len()]; METHODS.len()],
}

const METHODS: [&str; 7] = ["ListFlights", "GetFlightInfo", "GetSchema", "DoGet", "DoExchange", "Check", "other"];
const OUTCOMES: [&str; 2] = ["answered", "refused"];

impl Metrics {
    pub(super) fn new<'a>(datasets: impl Iterator<Item = &'a String>) -> Self {
        Self { by_dataset: datasets.map(|name| (name.clone(), Arc::default())).collect(), requests: Default::default() }
    }

    /// The counters of the data set `name`, which the server has.
    pub(super) fn served(&self, name: &str) -> Arc<Served> {
        self.by_dataset.get(name).cloned().unwrap_or_default()
    }

    pub(super) fn request(&self, path: &str, refused: bool) {
        let method = path.rsplit('/').next().and_then(|last| METHODS.iter().position(|&method| method == last));
        self.requests[method.unwrap_or(METHODS.len() - 1)][usize::from(refused)].fetch_add(1, Ordering::Relaxed);
    }

    /// The text that Prometheus collects, of a server with `streams` open.
    pub(super) fn text(&self, streams: usize) -> String {
        let mut text = String::new();
        let head = |text: &mut String, name: &str, kind: &str, help: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        head(&mut text, "topolab_streams_open", "gauge", "Streams of batches that are open.");
        let _ = writeln!(text, "topolab_streams_open {streams}");
        type Field = fn(&Served) -> &AtomicU64;
        let counters: [(&str, &str, Field); 4] = [
            ("topolab_streams_total", "Streams of batches that were opened.", |served| &served.streams),
            ("topolab_batches_total", "Batches sent.", |served| &served.batches),
            ("topolab_images_total", "Pictures sent.", |served| &served.images),
            ("topolab_image_bytes_total", "Bytes of the numbers of pictures sent.", |served| &served.bytes),
        ];
        for (name, help, field) in counters {
            head(&mut text, name, "counter", help);
            for (dataset, served) in &self.by_dataset {
                let dataset = dataset.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = writeln!(text, "{name}{{dataset=\"{dataset}\"}} {}", field(served).load(Ordering::Relaxed));
            }
        }
        head(&mut text, "topolab_requests_total", "counter", "Requests, by method and outcome.");
        for (method, outcomes) in METHODS.iter().zip(&self.requests) {
            for (outcome, count) in OUTCOMES.iter().zip(outcomes) {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(text, "topolab_requests_total{{method=\"{method}\",outcome=\"{outcome}\"}} {count}");
            }
        }
        text
    }
}

/// Answers `GET /metrics` with what `text` gives, one connection at a time and none for longer than a few seconds, for ever.
pub(super) async fn answer(listener: TcpListener, text: impl Fn() -> String) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                let _ = tokio::time::timeout(Duration::from_secs(5), exchange(connection, &text)).await;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn exchange(mut connection: TcpStream, text: &impl Fn() -> String) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < 8192 {
        if connection.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = match request.starts_with(b"GET /metrics ") {
        true => ("200 OK", text()),
        false => ("404 Not Found", "metrics are at /metrics\n".to_owned()),
    };
    let length = body.len();
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    connection.write_all(body.as_bytes()).await?;
    connection.shutdown().await
}
