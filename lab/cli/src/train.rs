//! `lab train` and `lab eval`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use datasets::{Batches, Seed};
use lab::train::{Checkpoint, Decayed, Event, Optimizer, Options, Precision, Recipe, Schedule, evaluate_top5, fit_with};
use lab::weights::Names;
use lab::{Model, Table, device, show, weights};
use pipeline::augment::{self, Transform};
use pipeline::loader::Config;
use pipeline::{Loader, Store};

use crate::networks::{names, network};
use crate::{note, say};

/// The network and its pictures.
#[derive(Debug, Args)]
struct Setting {
    /// A network by its name (an unknown one lists them), or a JSON file with an architecture
    #[arg(short = 'a', long, visible_alias = "arch", value_name = "NAME")]
    model: String,
    /// A store, as `pipeline convert` makes it
    #[arg(short, long, value_name = "STORE")]
    data: PathBuf,
    /// Multiple of the channels of a mobile network
    #[arg(long, value_name = "FACTOR")]
    width_mult: Option<f64>,
    /// Rows and columns of a picture; 224, or those of the store where they are all alike and smaller
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<usize>,
    /// Pictures in a batch
    #[arg(short, long, visible_alias = "batch", value_name = "N", default_value = "256")]
    batch_size: NonZeroUsize,
    /// Trained weights to begin with: safetensors, or a state dict of PyTorch
    #[arg(long, visible_alias = "pretrained", value_name = "FILE")]
    weight: Option<PathBuf>,
    /// The split that is tested; val, or test where there is none
    #[arg(long, value_name = "NAME")]
    split: Option<String>,
    /// Threads that make batches; all cores if not said
    #[arg(short = 'j', long, value_name = "N", default_value = "0")]
    workers: usize,
    /// Where to compute: cpu, cuda, or auto (a card where there is one)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: device::Want,
}

/// Train a network on a store, and test it after every epoch
///
/// With --checkpoint the run is kept in a folder: the same command goes on where it was killed, and history.csv and model.safetensors, which
/// `lab eval --weight` reads, are there in the end. Small pictures are padded by an eighth and cropped, others cropped at random and resized;
/// both are mirrored.
#[derive(Debug, Args)]
pub(crate) struct Train {
    #[command(flatten)]
    setting: Setting,
    /// Passes over the training split
    #[arg(long, default_value = "90")]
    epochs: usize,
    /// Peak learning rate
    #[arg(long, visible_alias = "learning-rate", default_value = "0.1")]
    lr: f64,
    /// Momentum of SGD
    #[arg(long, default_value = "0.9")]
    momentum: f64,
    /// Weight decay
    #[arg(long, visible_alias = "weight-decay", default_value = "1e-4")]
    wd: f64,
    /// How the learning rate falls: every --step epochs, along a cosine or a line to 0, or at the epochs of --schedule
    #[arg(long, value_enum, default_value_t = Decay::Step)]
    lr_decay: Decay,
    /// Epochs between two falls of `--lr-decay step`
    #[arg(long, value_name = "EPOCHS", default_value = "30")]
    step: NonZeroUsize,
    /// Epochs of the falls of `--lr-decay schedule`
    #[arg(long, value_name = "EPOCHS", num_args = 1.., default_values = ["150", "225"])]
    schedule: Vec<usize>,
    /// What a fall multiplies the rate by
    #[arg(long, value_name = "FACTOR", default_value = "0.1")]
    gamma: f64,
    /// Epochs over which the rate grows to its peak; 5 if no number is said
    #[arg(long, value_name = "EPOCHS", num_args = 0..=1, default_missing_value = "5", default_value = "0")]
    warmup: f64,
    /// Share of the target given to all classes alike
    #[arg(long, value_name = "SHARE", default_value = "0")]
    label_smoothing: f64,
    /// Weight decay leaves biases and normalisation alone
    #[arg(long)]
    decay_weights_only: bool,
    /// Numbers of 16 bits where they do; for CUDA
    #[arg(long)]
    mixed: bool,
    /// Memory that training may take, such as 8G; larger batches are computed in parts
    #[arg(short, long, value_name = "BYTES", value_parser = crate::sweep::bytes)]
    memory: Option<u64>,
    /// Of the weights, the order and augmentation of pictures, and what a step draws
    #[arg(long, visible_alias = "manual-seed", default_value = "0")]
    seed: u64,
    /// A folder for the run
    #[arg(short, long, value_name = "FOLDER")]
    checkpoint: Option<PathBuf>,
    /// Steps between two checkpoints
    #[arg(long, value_name = "STEPS", default_value = "500")]
    every: NonZeroUsize,
}

/// Test a network on a store: loss, and how often the class is the first, or among the first five
#[derive(Debug, Args)]
pub(crate) struct Eval {
    #[command(flatten)]
    setting: Setting,
    /// Average the logits over ten crops: corners and middle, and the same mirrored
    #[arg(long)]
    ten_crop: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Decay {
    Step,
    #[value(name = "cos", alias = "cosine")]
    Cos,
    Linear,
    Schedule,
}

/// A network and what it is tested on.
struct Ready {
    model: Model,
    size: usize,
    /// Whether the store's pictures have that size already.
    as_stored: bool,
    test: Loader,
}

impl Setting {
    fn ready(&self, seed: u64, ten_crop: bool) -> Result<Ready> {
        let store = Store::open(&self.data)?;
        let meta = store.meta();
        let names: Vec<&str> = meta.splits.iter().map(|split| split.name.as_str()).collect();
        let split = match &self.split {
            Some(split) => split.clone(),
            None => {
                let found = ["val", "test"].into_iter().find(|name| names.contains(name));
                found
                    .with_context(|| {
                        format!("{}: wanted a split val or test, found {}; --split names one", self.data.display(), names.join(", "))
                    })?
                    .to_owned()
            }
        };
        let pictures = &meta.pictures[store.split(&split)?];
        let one_size = match (pictures.height, pictures.width) {
            (Some(height), Some(width)) if height.min == height.max && width == height => Some(height.max as usize),
            _ => None,
        };
        let size = self.input_size.unwrap_or_else(|| one_size.filter(|&size| size < LARGE).unwrap_or(LARGE));
        let as_stored = one_size == Some(size);
        let mut transforms = if as_stored { vec![] } else { augment::imagenet_eval(size) };
        if ten_crop {
            // In place of the one in the middle.
            transforms.truncate(1);
            transforms.push(Transform::TenCrop { size });
        }
        let config = Config {
            threads: self.workers,
            channels: pipeline::decode::Channels::Rgb,
            ..Config::eval(&split, self.batch_size.get(), transforms)
        };
        let graph = network(&self.model, meta.classes.len(), self.width_mult, size)?.graph(Seed(seed))?;
        let test = Loader::new(store, config)?;
        let device = device::pick(self.device)?;
        let model = match &self.weight {
            None => Model::new(graph, Seed(seed), &device)?,
            Some(file) => {
                let params = weights::load(&graph, file, &Names::default(), &device)?;
                Model::new(graph, Seed(seed), &device)?.with(params)
            }
        };
        Ok(Ready { model, size, as_stored, test })
    }
}

/// Pixels of a side of the pictures that networks for photographs were made for.
const LARGE: usize = 224;

/// # Errors
/// When something that was named is not there or does not fit, or training fails.
pub(crate) fn train(args: &Train) -> Result<ExitCode> {
    let Ready { model, size, as_stored, test } = args.setting.ready(args.seed, false)?;
    let crop = if as_stored { Transform::PadCrop { size, pad: size / 8 } } else { augment::imagenet_train(size).swap_remove(0) };
    let config = Config {
        threads: args.setting.workers,
        channels: pipeline::decode::Channels::Rgb,
        ..Config::train(args.setting.batch_size.get(), vec![crop, Transform::Flip { p: 0.5 }], Seed(args.seed).named("pictures"))
    };
    let data = Loader::new(Store::open(&args.setting.data)?, config)?;
    let recipe = recipe(args)?;
    note(&format!(
        "{}: {} parameters; {} pictures of {size}×{size} to train with, {} to test",
        model.graph.name,
        model.profile().params,
        data.samples(),
        test.samples()
    ));
    let checkpoint = args.checkpoint.as_ref().map(|folder| Checkpoint { folder: folder.join("run"), every: args.every.get() });
    let mut show = show::training("train");
    let options = Options { checkpoint, memory: args.memory };
    let history = fit_with(&model, &data, Some(&test), &recipe, &options, |event| {
        if let Event::Epoch { row, .. } = &event {
            let accuracy = row.test_accuracy.unwrap_or(f64::NAN);
            say(&format!("epoch {}: lr {:.3e}, loss {:.4}, test accuracy {accuracy:.4}", row.epoch, row.lr, row.train_loss));
        }
        show(event);
    })?;
    if let Some(folder) = &args.checkpoint {
        Table::from_rows(&history)?.write_csv(folder.join("history.csv"))?;
        model.save(folder.join("model.safetensors"))?;
        note(&format!("{}: history.csv, model.safetensors", folder.display()));
    }
    Ok(ExitCode::SUCCESS)
}

fn recipe(args: &Train) -> Result<Recipe> {
    ensure!(args.epochs > 0, "--epochs: wanted at least 1, found 0");
    let milestones = match args.lr_decay {
        Decay::Step => (1..).map(|fall| fall * args.step.get()).take_while(|&epoch| epoch < args.epochs).collect(),
        Decay::Schedule => args.schedule.clone(),
        Decay::Cos | Decay::Linear => vec![],
    };
    if !milestones.is_sorted() {
        bail!("--schedule: wanted epochs in order, found {milestones:?}");
    }
    let schedule = match args.lr_decay {
        Decay::Cos => Schedule::Cosine { floor: 0.0 },
        Decay::Linear => Schedule::Linear { floor: 0.0 },
        Decay::Step | Decay::Schedule => Schedule::Step { milestones, factor: args.gamma },
    };
    Ok(Recipe {
        optimizer: Optimizer::Sgd { momentum: args.momentum, nesterov: false, weight_decay: args.wd },
        schedule,
        warm_up: args.warmup,
        label_smoothing: args.label_smoothing,
        decayed: if args.decay_weights_only { Decayed::Weights } else { Decayed::All },
        precision: if args.mixed { Precision::Mixed } else { Precision::Full },
        seed: args.seed,
        ..Recipe::sgd(args.lr, args.epochs)
    })
}

/// # Errors
/// When something that was named is not there or does not fit.
pub(crate) fn eval(args: &Eval) -> Result<ExitCode> {
    ensure!(args.setting.weight.is_some(), "--weight: wanted a file with trained weights, found none; --model knows {}", names());
    let Ready { model, size, test, .. } = args.setting.ready(0, args.ten_crop)?;
    let (score, top5) = evaluate_top5(&model, &test)?;
    let (name, pictures) = (&model.graph.name, test.samples());
    say(&format!("{name} on {pictures} pictures of {size}×{size}: top-1 {:.4}, top-5 {top5:.4}, loss {:.4}", score.accuracy, score.loss));
    Ok(ExitCode::SUCCESS)
}
