//! `topolab train` and `topolab eval`.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use datasets::{BatchIter, Batches, Seed};
use lab::models::Spec;
use lab::show::Progress;
use lab::train::{Checkpoint, Decayed, Epoch, Event, Flow, Optimizer, Options, Precision, Recipe, Schedule, evaluate_top5, fit_with};
use lab::weights::Names;
use lab::{Model, Table, device, show, weights};
use pipeline::augment::{self, Transform, normalize::Constants};
use pipeline::loader::Config;
use pipeline::{Loader, Store};
use serde::{Deserialize, Serialize};

use crate::networks::{SMALL, names, network};
use crate::{EXIT_CODES, note, say};

/// The network and its pictures.
#[derive(Debug, Args)]
struct Setting {
    /// A network by its name (an unknown one lists them), or a JSON file with an architecture; needless where --checkpoint has one
    #[arg(short = 'a', long, visible_alias = "arch", value_name = "NAME")]
    model: Option<String>,
    /// A store, as `topolab data convert` makes it
    #[arg(short, long, value_name = "STORE")]
    data: PathBuf,
    /// Multiple of the channels of a mobile network
    #[arg(long, value_name = "FACTOR", requires = "model")]
    width_mult: Option<f64>,
    /// Rows and columns of a picture; 224, or those of the store where they are all alike and smaller
    #[arg(long, value_name = "PIXELS")]
    input_size: Option<usize>,
    /// Means and deviations of the colours: imagenet, as published weights want them, store (of this store's training pictures), cifar10,
    /// none and others; imagenet where pictures have more than 64 pixels a side, store where they are smaller
    #[arg(long, value_name = "NAME", value_parser = constants)]
    normalize: Option<Constants>,
    /// Pictures in a batch
    #[arg(short, long, visible_alias = "batch", value_name = "N", default_value = "256")]
    batch_size: NonZeroUsize,
    /// Trained weights: safetensors, or a state dict of PyTorch (.pth, .pt), alone or in a checkpoint with other things, such as torchvision's
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

fn constants(name: &str) -> Result<Constants, String> {
    serde_json::from_value(name.into()).map_err(|error| error.to_string())
}

/// Train a network on a store, and test it after every epoch
///
/// With --checkpoint the run is kept in a folder: the same command goes on where it was killed. After every epoch the folder has
/// network.json and model.safetensors, which `topolab eval --checkpoint` reads, and in the end history.csv. Small pictures are padded by an eighth
/// and cropped, others cropped at random and resized; both are mirrored.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, after_long_help = format!("{TRAINING}\n\n{EXIT_CODES}"))]
pub struct Train {
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

const TRAINING: &str = r#"From a folder of ImageNet to a number:

  topolab data convert ILSVRC/Data/CLS-LOC "imagenet.lmdb"
  topolab train --model mobilenet_v2 --data "imagenet.lmdb" --epochs 150 --lr-decay cos --lr 0.05 --wd 4e-5 -c ckpt
  topolab eval --data "imagenet.lmdb" -c ckpt"#;

/// Test a network on a store: loss, and how often the class is the first, or among the first five
///
/// The network is that of a run (--checkpoint), or one by its name with weights from a file (--model, --weight). Pictures of more than 64
/// pixels a side are resized to 8/7 of the input size and cropped in the middle.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES, after_long_help = format!("{TESTING}\n\n{EXIT_CODES}"))]
pub struct Eval {
    #[command(flatten)]
    setting: Setting,
    /// The folder of a run of `topolab train`
    #[arg(short, long, value_name = "FOLDER")]
    checkpoint: Option<PathBuf>,
    /// Average the logits over ten crops: corners and middle, and the same mirrored
    #[arg(long)]
    ten_crop: bool,
}

const TESTING: &str = r#"torchvision's weights:

  topolab eval --model resnet50 --weight resnet50-0676ba61.pth --data "imagenet.lmdb""#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Decay {
    Step,
    #[value(name = "cos", alias = "cosine")]
    Cos,
    Linear,
    Schedule,
}

/// What a run's folder says of its network, beside the weights.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    architecture: Spec,
    normalize: Constants,
}

impl Kept {
    const NETWORK: &str = "network.json";
    const WEIGHTS: &str = "model.safetensors";

    /// `None` where the folder has none yet.
    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(Self::NETWORK);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
        serde_json::from_slice(&text).with_context(|| format!("{}: wanted a network as `topolab train` writes it", path.display()))
    }

    fn write(&self, model: &Model, folder: &Path) -> Result<()> {
        let path = folder.join(Self::NETWORK);
        std::fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| format!("{}: cannot be written", path.display()))?;
        Ok(model.save(folder.join(Self::WEIGHTS))?)
    }
}

/// A network and what it is tested on.
struct Ready {
    model: Model,
    kept: Kept,
    size: usize,
    /// Whether the store's pictures have that size already.
    as_stored: bool,
    test: Loader,
}

impl Setting {
    /// `kept` says what the options leave out; weights come from the file `weight`, if there is one.
    fn ready(&self, kept: Option<Kept>, weight: Option<&Path>, seed: u64, ten_crop: bool) -> Result<Ready> {
        let store = Store::open(&self.data)?;
        let meta = store.meta();
        let splits: Vec<&str> = meta.splits.iter().map(|split| split.name.as_str()).collect();
        let split = match &self.split {
            Some(split) => split.clone(),
            None => {
                let found = ["val", "test"].into_iter().find(|name| splits.contains(name));
                found
                    .with_context(|| {
                        format!("{}: wanted a split val or test, found {}; --split names one", self.data.display(), splits.join(", "))
                    })?
                    .to_owned()
            }
        };
        let pictures = &meta.pictures[store.split(&split)?];
        let one_size = match (pictures.height, pictures.width) {
            (Some(height), Some(width)) if height.min == height.max && width == height => Some(height.max as usize),
            _ => None,
        };
        let usual = one_size.filter(|&size| size < LARGE).unwrap_or(LARGE);
        let classes = meta.classes.len();
        let (architecture, normalize) = match (&self.model, kept) {
            (Some(name), _) => (network(name, classes, self.width_mult, self.input_size.unwrap_or(usual))?, None),
            (None, Some(kept)) => (kept.architecture, Some(kept.normalize)),
            (None, None) => bail!("--model: wanted a JSON file, or one of {}, found none", names()),
        };
        let graph = architecture.graph(Seed(seed))?;
        let size = graph.input_shape().last().copied().unwrap_or(usual);
        if let Some(wanted) = self.input_size.filter(|&wanted| wanted != size) {
            bail!("--input-size: wanted {size}, which the network was made for, found {wanted}");
        }
        let by_size = if size > SMALL { Constants::ImageNet } else { Constants::Store };
        let normalize = self.normalize.clone().or(normalize).unwrap_or(by_size);
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
            normalize: normalize.clone(),
            ..Config::eval(&split, self.batch_size.get(), transforms)
        };
        let test = Loader::new(store, config)?;
        let device = device::pick(self.device)?;
        let model = match weight {
            None => Model::new(graph, Seed(seed), &device)?,
            Some(file) => {
                let params = weights::load(&graph, file, &Names::default(), &device)?;
                Model::new(graph, Seed(seed), &device)?.with(params)
            }
        };
        Ok(Ready { model, kept: Kept { architecture, normalize }, size, as_stored, test })
    }
}

/// Pixels of a side of the pictures that networks for photographs were made for.
const LARGE: usize = 224;

/// # Errors
/// When something that was named is not there or does not fit, or training fails.
pub(crate) fn train(args: &Train) -> Result<ExitCode> {
    let before = args.checkpoint.as_deref().map(Kept::read).transpose()?.flatten();
    let Ready { model, kept, size, as_stored, test } = args.setting.ready(before, args.setting.weight.as_deref(), args.seed, false)?;
    let crop = if as_stored { Transform::PadCrop { size, pad: size / 8 } } else { augment::imagenet_train(size).swap_remove(0) };
    let config = Config {
        threads: args.setting.workers,
        channels: pipeline::decode::Channels::Rgb,
        normalize: kept.normalize.clone(),
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
    let mut unwritten = None;
    let history = fit_with(&model, &data, Some(&test), &recipe, &options, |event| {
        let mut flow = Flow::Go;
        if let Event::Epoch { row, model, .. } = &event {
            say(&told(row));
            if let Some(Err(error)) = args.checkpoint.as_ref().map(|folder| kept.write(model, folder)) {
                (unwritten, flow) = (Some(error), Flow::Stop);
            }
        }
        show(event);
        flow
    })?;
    if let Some(error) = unwritten {
        return Err(error);
    }
    if let Some(folder) = &args.checkpoint {
        // Again, since the run may have ended between its last checkpoint and these.
        kept.write(&model, folder)?;
        Table::from_rows(&history)?.write_csv(folder.join("history.csv"))?;
        note(&format!("{}: history.csv, {}, {}", folder.display(), Kept::NETWORK, Kept::WEIGHTS));
    }
    Ok(ExitCode::SUCCESS)
}

/// An epoch, for people.
fn told(row: &Epoch) -> String {
    let [loss, accuracy] = [row.test_loss, row.test_accuracy].map(|number| number.unwrap_or(f64::NAN));
    let &Epoch { epoch, lr, train_loss, train_accuracy, .. } = row;
    format!(
        "epoch {epoch}: lr {lr:.3e}, loss {train_loss:.4}, accuracy {train_accuracy:.4}, test loss {loss:.4}, test accuracy {accuracy:.4}"
    )
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
    let folder = args.checkpoint.as_deref();
    let Some(weight) = args.setting.weight.clone().or_else(|| Some(folder?.join(Kept::WEIGHTS))) else {
        bail!(
            "--weight: wanted a file with trained weights, or --checkpoint with the folder of a run, found none; --model knows {}",
            names()
        );
    };
    let kept = folder.map(Kept::read).transpose()?.flatten();
    if let (Some(folder), None) = (folder, &kept) {
        bail!("{}: wanted {}, which is there after the first epoch of `topolab train`", folder.display(), Kept::NETWORK);
    }
    let Ready { model, size, test, .. } = args.setting.ready(kept, Some(&weight), 0, args.ten_crop)?;
    let (score, top5) = evaluate_top5(&model, &Shown(&test))?;
    let (name, pictures) = (&model.graph.name, test.samples());
    say(&format!("{name} on {pictures} pictures of {size}×{size}: top-1 {:.4}, top-5 {top5:.4}, loss {:.4}", score.accuracy, score.loss));
    Ok(ExitCode::SUCCESS)
}

/// Batches that show on the way how many have been read.
struct Shown<'a>(&'a Loader);

impl Batches for Shown<'_> {
    fn samples(&self) -> usize {
        self.0.samples()
    }

    fn batches(&self) -> usize {
        self.0.batches()
    }

    fn sample_shape(&self) -> Vec<usize> {
        self.0.sample_shape()
    }

    fn classes(&self) -> usize {
        self.0.classes()
    }

    fn epoch(&self, epoch: u64, first: usize) -> BatchIter {
        let mut progress = Progress::auto("eval", self.batches() as u64);
        Box::new(Batches::epoch(self.0, epoch, first).inspect(move |_| progress.step("")))
    }
}
