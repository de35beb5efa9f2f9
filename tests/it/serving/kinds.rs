//! All that a loader makes, a server sends: mixed samples, views, balanced classes, any transform.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use pipeline::augment::{self, Between, Contrast, Transform, normalize::Constants};
use pipeline::loader::{Config, Output};
use pipeline::order::{Order, Per};

use super::{Batches, Client, Loader, Remote, Running, Seed, check, epoch, expect, train};

#[test]
fn every_kind_of_batch() {
    let server = Running::new();
    let recoloured = vec![
        Transform::Rotate { degrees: [-15.0, 15.0], between: Between::Bilinear, fill: [1, 2, 3] },
        augment::colour_jitter(0.4, 0.4, 0.4, 0.1),
        Transform::Flip { p: 0.5 },
    ];
    let weights = (0..96).map(|at| f64::from(at % 5)).collect();
    let configs = [
        Config { mix_up: Some(0.2), ..train(10) },
        Config { mix_up: Some(1.0), output: Output::F32, ..train(7) },
        Config { normalize: Constants::Contrast(Contrast { lambda: 0.01, ..Contrast::default() }), output: Output::F32, ..train(9) },
        Config::eval("test", 5, vec![Transform::TenCrop { size: 8 }]),
        Config { mix_up: Some(0.4), output: Output::F32, ..Config::train(5, vec![Transform::TenCrop { size: 8 }], Seed(1)) },
        Config { order: Order::Balanced, ..train(10) },
        Config { order: Order::Weighted { weights, per: Per::Sample }, ..train(10) },
        Config::train(10, recoloured, Seed(3)),
    ];
    for config in configs {
        let (local, remote) = (Loader::new(server.store.clone(), config.clone()).unwrap(), server.client(config.clone()));
        assert_eq!((remote.sample_shape(), remote.batches()), (local.sample_shape(), local.batches()));
        for (number, first) in [(0, 0), (2, 1)] {
            assert!(epoch(&remote, number, first) == epoch(&local, number, first), "epoch {number} from {first} on: {config:?}");
        }
        // Kept pictures are this machine's affair: a client that wants them is served as if it did not.
        let keeping = server.client(Config { cache: 1 << 20, threads: 3, ..config });
        assert!(epoch(&keeping, 0, 0) == epoch(&local, 0, 0));
    }
}

#[test]
fn what_no_loader_makes() {
    let server = Running::new();
    let of = |config| server.refusal("shapes", config);
    check(
        &of(Config { order: Order::Weighted { weights: vec![1.0], per: Per::Class }, ..train(1) }),
        expect!["SERVER: order.weighted.weights: wanted one for each of 8 classes, found 1"],
    );
    check(
        &of(Config { order: Order::Weighted { weights: vec![-1.0; 8], per: Per::Class }, ..train(1) }),
        expect!["SERVER: order.weighted.weights: wanted finite numbers of at least 0, found -1 at 0"],
    );
    check(&of(Config { mix_up: Some(2.0), ..train(1) }), expect!["SERVER: mix_up: wanted more than 0, at most 1, found 2"]);
    check(
        &of(Config { normalize: Constants::Contrast(Contrast::default()), ..train(1) }),
        expect!["SERVER: output: wanted f32, since with `contrast` each picture has numbers of its own, found u8"],
    );
}

/// Our clients ask for no threads and no memory of the server's. Nobody else gets them for the asking.
#[test]
fn what_is_the_servers() {
    let server = Running::new();
    for (said, meant, want) in [
        (r#""threads":0"#, r#""threads":7"#, expect!["SERVER: loader.threads: wanted 0, since the threads are the server's, found 7"]),
        (r#""cache":0"#, r#""cache":9"#, expect!["SERVER: loader.cache: wanted 0, since the memory is the server's, found 9"]),
    ] {
        let url = rewriting(server.port(), [said, meant]);
        let error = Client::connect(&Remote::new(&url), "shapes", train(1)).unwrap_err();
        check(&error.to_string().replace(&url, "SERVER"), want);
    }
}

/// A way to a server on which what a client said becomes what it did not mean, and is as long.
fn rewriting(to: u16, [said, meant]: [&'static str; 2]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("grpc+tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) = (client.unwrap(), TcpStream::connect(("127.0.0.1", to)).unwrap());
            let (mut answers, mut into) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut into));
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(read @ 1..) = client.read(&mut bytes) {
                    let places = bytes[..read].windows(said.len()).enumerate().filter(|(_, window)| *window == said.as_bytes());
                    for at in places.map(|(at, _)| at).collect::<Vec<_>>() {
                        bytes[at..at + said.len()].copy_from_slice(meant.as_bytes());
                    }
                    if server.write_all(&bytes[..read]).is_err() {
                        break;
                    }
                }
                let _ = server.shutdown(Shutdown::Both);
            });
        }
    });
    url
}
