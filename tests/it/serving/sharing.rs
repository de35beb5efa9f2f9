//! Batches in memory that a server shares with clients of its machine.
#![cfg(target_os = "linux")]

use std::process::Command;

use super::*;

/// What comes through the socket are words about the batches.
#[test]
fn pictures_stay_where_they_are() {
    let server = Running::new();
    // 786 kB a batch; the connection would break after one.
    let config = Config::train(4, vec![Transform::ResizeTo { height: 256, width: 256 }], Seed(0));
    let (url, broken) = breaking(server.port(), 700_000);
    let remote = Client::connect(&Remote::new(url), "shapes", config.clone()).unwrap();
    let local = Loader::new(server.store.clone(), config).unwrap();
    assert!(remote.epoch(0, 0).map(Result::unwrap).eq(local.epoch(0, 0).map(Result::unwrap)));
    assert_eq!(broken.load(Ordering::Relaxed), 0);
}

/// A batch that a client has in hand is the client's, whatever becomes of the stream, the client and the server.
#[test]
fn batches_outlive_their_server() {
    let mut server = Running::new();
    let local = epoch(&Loader::new(server.store.clone(), train(10)).unwrap(), 0, 0);
    let client = server.client(train(10));
    let mut stream = client.epoch(0, 0);
    let kept: Vec<Batch> = stream.by_ref().take(2).map(Result::unwrap).collect();
    drop(stream);
    // Others are served, and would be in the same memory if it had gone back.
    assert_eq!(epoch(&server.client(train(10)), 5, 0).len(), 10);
    assert_eq!(kept, local[..2]);
    drop(client);
    server.end();
    assert_eq!(kept, local[..2]);
}

/// A consumer that keeps every third batch sees none change.
#[test]
fn batches_that_are_kept() {
    let server = Running::new();
    for output in [Output::U8, Output::F32] {
        let config = Config { output, ..train(2) };
        let local = epoch(&Loader::new(server.store.clone(), config.clone()).unwrap(), 0, 0);
        let kept: Vec<Batch> = server.client(config).epoch(0, 0).map(Result::unwrap).step_by(3).collect();
        assert!(kept.len() == 16 && kept.iter().eq(local.iter().step_by(3)));
    }
}

/// Whoever is told of memory that is not there reads through the socket; whoever says nonsense is told so.
#[test]
fn what_a_client_may_say() {
    let Some(python) = crate::python::environment() else { return };
    let server = Running::new();
    let script = r#"
import json, sys
from pyarrow import flight
client = flight.connect(sys.argv[1])
def said(ticket, word):
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(ticket))
    try:
        with writer:
            writer.write_metadata(word)
            print(len([reader.read_chunk() for _ in range(4)]))
    except Exception as error:
        print(str(error).split("message: ")[1].split(". gRPC")[0].split(". Detail")[0])
ticket = json.dumps({"dataset": "shapes", "loader": {"batch": 2}})
said(ticket, b'{"returned": 1}')
said(ticket, b'{"returned": -1}')
said(ticket, b'{"returned": 0, "more": 1}')
said(ticket, b'all of them')
said(ticket, b'x' * 70000)
said("{}", b'{"returned": 0}')
"#;
    let output = Command::new(python).args(["-c", script, &server.url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    expect![[r#"
        wanted a batch back that was sent, found byte 1
        wanted "opened" or {"returned": BYTE}: invalid value: integer `-1`, expected usize at line 1 column 15
        wanted "opened" or {"returned": BYTE}: expected value at line 1 column 14
        wanted "opened" or {"returned": BYTE}: expected value at line 1 column 1
        wanted a message of at most 65536 bytes, found 70004
        ticket: wanted a ticket as JSON, found missing field `dataset` at line 1 column 2
    "#]]
    .assert_eq(&text);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(epoch(&server.client(train(10)), 0, 0).len(), 10);
    server.until("topolab_streams_open", 0);
}
