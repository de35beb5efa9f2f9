//! Published checkpoints: pictures of a store, prepared and classified with the weights of a file, give PyTorch's numbers.

use std::path::PathBuf;
use std::process::Command;

use candle::Device;
use datasets::{Memory, Part, Seed};
use lab::models::mobilenet_v2;
use lab::train::predict;
use lab::{Model, Params};
use pipeline::augment::{self, normalize::Constants};
use pipeline::{Loader, convert, loader};
use serde_json::Value;

use crate::golden;
use crate::programs::built;

const CLASSES: usize = 10;
const COUNT: usize = 24;

/// `picture` of `golden/evaluating/generate.py`, as planes.
fn planes(i: usize) -> impl Iterator<Item = u8> {
    let at = move |c: usize, y: usize, x: usize| {
        let waves = (x * (3 + i % 5) + y * (1 + i % 7) + 85 * c * (i % 3)) % 256;
        let blocks = 40 * ((x / (5 + i) + y / (9 + i / 2)) % 4);
        ((waves + blocks) % 256) as u8
    };
    (0..3).flat_map(move |c| (0..82).flat_map(move |y| (0..100).map(move |x| at(c, y, x))))
}

fn pictures() -> Memory {
    let labels = (0..COUNT).map(|i| (i % CLASSES) as u32).collect();
    let files = vec![("formula".to_owned(), COUNT)];
    let part = |name: &str| Part { name: name.to_owned(), planes: (0..COUNT).flat_map(planes).collect(), labels, files };
    Memory::new("formula", (0..CLASSES).map(|class| class.to_string()).collect(), [3, 82, 100], vec![part("val")])
}

fn checkpoint() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/evaluating/checkpoint.pth.tar")
}

/// Golden: torchvision's MobileNetV2 out of a checkpoint of the published program's layout, on one crop and on ten.
#[test]
fn a_published_checkpoint_gives_the_numbers_of_pytorch() {
    let golden = golden::json("evaluating/evaluation.json");
    let size = golden["size"].as_u64().unwrap() as usize;
    let folder = tempfile::tempdir().unwrap();
    let store = convert::ensure(&pictures(), folder.path().join("formula.lmdb"), "formula").unwrap();

    let graph = mobilenet_v2::Config { input: [3, size, size], ..mobilenet_v2::Config::imagenet(0.05, CLASSES) }.graph().unwrap();
    let params = Params::load(&graph, checkpoint(), &Device::Cpu).unwrap();
    let model = Model::new(graph, Seed(0), &Device::Cpu).unwrap().with(params);
    for (transforms, wanted) in [(augment::imagenet_eval(size), "middle"), (augment::imagenet_ten_crop(size), "ten")] {
        let config = loader::Config { normalize: Constants::ImageNet, ..loader::Config::eval("val", 7, transforms) };
        let mut logits = Vec::new();
        predict(&model, &Loader::new(store.clone(), config).unwrap(), |rows, _| {
            logits.extend(rows.flatten_all()?.to_vec1::<f32>()?);
            Ok(())
        })
        .unwrap();
        let theirs: Vec<f64> =
            golden[wanted]["logits"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap()).map(number).collect();
        assert_eq!(logits.len(), theirs.len());
        // Not by the largest distance, which `f64::max` finds without NaN.
        for (ours, theirs) in logits.iter().zip(&theirs) {
            assert!((f64::from(*ours) - theirs).abs() < 1e-4, "{wanted}: {ours} for {theirs}");
        }
    }

    for (option, wanted) in [("", "middle"), (" --ten-crop", "ten")] {
        let options =
            format!("eval -a mobilenet_v2 --width-mult 0.05 --input-size {size} --data formula.lmdb -b 7 -j 1 --device cpu{option}");
        let mut command = Command::new(built("lab"));
        let output = command.args(options.split(' ')).arg("--weight").arg(checkpoint()).current_dir(folder.path()).output().unwrap();
        let told = String::from_utf8(output.stdout).unwrap();
        let [top1, top5, loss] = ["top1", "top5", "loss"].map(|name| number(&golden[wanted][name]));
        let want = format!("mobilenet_v2 on 24 pictures of 72×72: top-1 {top1:.4}, top-5 {top5:.4}, loss {loss:.4}\n");
        assert_eq!(told, want, "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}
