//! Counts a ResNet-18 for images of 3×32×32 and draws it.
//!
//! `cargo run --example draw_network -- resnet18.svg` prints its five largest layers, and writes the drawing to the file that is named.
#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;

use lab::models::resnet;
use lab::{draw, metrics::profile};

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args().nth(1).unwrap_or_else(|| "resnet18.svg".to_owned());
    let graph = resnet::Config::r18(10).cifar().graph()?;

    let cost = profile::of(&graph);
    println!("{} parameters, {} multiply-adds for an image", cost.params, cost.macs);
    let mut layers: Vec<&profile::Row> = cost.rows.iter().collect();
    layers.sort_by_key(|row| std::cmp::Reverse(row.params));
    for row in layers.iter().take(5) {
        println!("{:24} {:12} {:>10} parameters", row.node, row.output, row.params);
    }

    draw::network(&graph).save(&file)?;
    println!("drawn in {file}");
    Ok(())
}
